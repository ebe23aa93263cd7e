@testable import EBPF

/// Makes instructions of a ``ContractProgram``. r9: the context, r6: the L3 header, r7: the packet's end, r8: the L4
/// header; the rest is for blocks. Map 0 is an array of four, map 1 a program array.
struct ContractEmitter {
    static let maps = [MapDefinition(name: "counts", type: 2, keySize: 4, valueSize: 16, maxEntries: 4, flags: 0),
                       MapDefinition(name: "next", type: 3, keySize: 4, valueSize: 4, maxEntries: 2, flags: 0)]

    var a = Assembler()
    let parse: ContractProgram.Parse
    var kind = ContractProgram.Kind.tcp4
    var l3 = 14
    let passes, drops: Assembler.Label
    var functions: [(Assembler.Label, field: Int)] = []

    var isTCP: Bool { kind == .tcp4 || kind == .tcp6 }
    var isIPv6: Bool { kind == .tcp6 || kind == .udp6 }
    var field: Int { isTCP ? 16 : 6 }
    var headerBytes: Int { isTCP ? 20 : 8 }

    static func instructions(_ bodies: [ContractProgram.Kind: ContractProgram.Body], _ parse: ContractProgram.Parse) -> [Instruction] {
        var emitter = ContractEmitter(parse)
        emitter.program(bodies)
        return emitter.a.finished()
    }

    private init(_ parse: ContractProgram.Parse) {
        self.parse = parse
        passes = a.label()
        drops = a.label()
    }

    // MARK: Frame

    mutating func program(_ bodies: [ContractProgram.Kind: ContractProgram.Body]) {
        a.mov(9, 1)
        a.load(Assembler.word, 6, 9, 0)
        a.load(Assembler.word, 7, 9, 4)
        bounds(6, 14 + 4 + 28)
        a.load(Assembler.half, 1, 6, 12)
        let tagged = a.label()
        a.jump(.equal, 1, imm: 0x0081, to: tagged)
        families(bodies, l3: 14)
        a.place(tagged)
        a.load(Assembler.half, 1, 6, 16)
        families(bodies, l3: 18)
        a.place(passes)
        a.mov(0, imm: 2)
        a.exit()
        a.place(drops)
        a.mov(0, imm: 1)
        a.exit()
        for (label, field) in functions { function(label, field) }
    }

    /// Leaves the program where `count` bytes from `register` are not all there.
    mutating func bounds(_ register: UInt8, _ count: Int, else label: Assembler.Label? = nil) {
        a.mov(2, register)
        a.add(2, imm: Int32(count))
        a.jump(.above, 2, 7, to: label ?? passes)
    }

    /// r1 is the EtherType in front of the L3 header.
    mutating func families(_ bodies: [ContractProgram.Kind: ContractProgram.Body], l3: Int) {
        self.l3 = l3
        let ipv6 = a.label(), ipv4 = a.label()
        a.jump(.equal, 1, imm: 0x0008, to: ipv4)
        a.jump(.equal, 1, imm: 0xdd86, to: ipv6)
        a.jump(to: passes)
        a.place(ipv4)
        a.add(6, imm: Int32(l3))
        a.load(Assembler.half, 1, 6, 6)
        a.and(1, imm: 0xff3f)
        a.jump(.notEqual, 1, imm: 0, to: passes)
        a.load(Assembler.byte, 1, 6, 9)
        dispatch(bodies, [(.tcp4, 6), (.udp4, 17), (.ipip, 4)])
        a.place(ipv6)
        self.l3 = l3
        a.add(6, imm: Int32(l3))
        bounds(6, 48)
        a.load(Assembler.byte, 1, 6, 6)
        dispatch(bodies, [(.tcp6, 6), (.udp6, 17)])
    }

    mutating func dispatch(_ bodies: [ContractProgram.Kind: ContractProgram.Body], _ kinds: [(ContractProgram.Kind, Int32)]) {
        let here = l3
        var labels: [(ContractProgram.Kind, Assembler.Label)] = []
        for (kind, proto) in kinds where bodies[kind] != nil {
            let label = a.label()
            labels.append((kind, label))
            a.jump(.equal, 1, imm: proto, to: label)
        }
        a.jump(to: passes)
        for (kind, label) in labels {
            a.place(label)
            self.kind = kind
            l3 = here
            if let body = bodies[kind] { emit(body) }
        }
    }

    mutating func emit(_ body: ContractProgram.Body) {
        if kind == .ipip { return decapsulate() }
        transport(insists: true)
        for block in body.blocks { emit(block) }
        switch body.finish {
        case .pass: a.jump(to: passes)
        case .tx:
            a.mov(0, imm: 3)
            a.exit()
        case .encapsulate: encapsulate()
        case .quote(let count): quote(Int(count))
        case .tailCall:
            a.mov(1, 9)
            a.map(2, 1)
            a.mov(3, imm: 0)
            a.call(helper: 12)
            a.jump(to: passes)
        }
    }

    /// r8 from r6.
    mutating func transport(insists: Bool) {
        a.mov(8, 6)
        if isIPv6 { a.add(8, imm: 40) } else if parse == .careless || parse == .plain && !insists { a.add(8, imm: 20) } else {
            a.load(Assembler.byte, 1, 6, 0)
            a.and(1, imm: 15)
            if parse == .plain {
                a.jump(.notEqual, 1, imm: 5, to: passes)
                a.add(8, imm: 20)
            } else {
                a.shl(1, 2)
                a.add(8, 1)
            }
        }
        bounds(8, headerBytes)
    }

    /// All pointers anew, after a helper that moves an end.
    mutating func reload() {
        a.load(Assembler.word, 6, 9, 0)
        a.load(Assembler.word, 7, 9, 4)
        bounds(6, l3 + (isIPv6 ? 40 : 20), else: drops)
        a.add(6, imm: Int32(l3))
        transport(insists: false)
    }

    // MARK: Blocks

    mutating func emit(_ block: ContractProgram.Block) {
        switch block {
        case .port(let isSource, let value, let fix):
            change(8, isSource ? 0 : 2, Assembler.half, to: UInt32(value), fix, inPseudoHeader: false)
        case .address(let isSource, let value, let fix):
            change(6, isIPv6 ? (isSource ? 20 : 36) : (isSource ? 12 : 16), Assembler.word, to: value, fix, inPseudoHeader: true)
        case .ttl(let isKept): ttl(isKept)
        case .portUnlessZero(let value, let writesOnes): portUnlessZero(value, writesOnes)
        case .fromScratch: fromScratch()
        case .noChecksum: if kind == .udp4 { a.store(Assembler.half, 8, 6, imm: 0) }
        case .eitherZero(let value): if kind == .udp4 { eitherZero(value) }
        case .roundTrip(let trip): roundTrip(trip)
        case .payload(let at, let value, let isKept): payload(Int(at), value, isKept)
        case .urgent(let value): if isTCP { change(8, 18, Assembler.half, to: UInt32(value), .folded, inPseudoHeader: false) }
        case .count(let byPort): count(byPort)
        case .macSwap: macSwap()
        case .vlanPush(let tag): vlanPush(tag)
        case .trim: trim()
        case .look(let look): emit(look)
        case .arms(let constant, let here, let there, let apart, let shift, let end): arms(constant, here, there, apart, shift, end)
        case .half(let blocks):
            let skip = a.label()
            a.load(Assembler.byte, 1, 8, 1)
            a.and(1, imm: 1)
            a.jump(.equal, 1, imm: 0, to: skip)
            for block in blocks { emit(block) }
            a.place(skip)
        case .metadata:
            a.mov(1, 9)
            a.mov(2, imm: -4)
            a.call(helper: 54)
            a.jump(.notEqual, 0, imm: 0, to: passes)
            a.load(Assembler.word, 1, 9, 8)
            a.load(Assembler.word, 6, 9, 0)
            a.mov(2, 1)
            a.add(2, imm: 4)
            let tooFar = a.label()
            a.jump(.above, 2, 6, to: tooFar)
            a.store(Assembler.word, 1, 0, imm: 7)
            a.place(tooFar)
            reload()
        }
    }
}
