@testable import EBPF

/// Makes instructions of a ``ContractProgram``. r9: the context, r6: the L3 header, r7: the packet's end, r8: the L4
/// header; the rest is for blocks. Map 0 is an array of four, map 1 a program array.
struct ContractEmitter {
    static let maps = [MapDefinition(name: "counts", type: 2, keySize: 4, valueSize: 16, maxEntries: 4, flags: 0),
                       MapDefinition(name: "next", type: 3, keySize: 4, valueSize: 4, maxEntries: 2, flags: 0)]

    private var a = Assembler()
    private let parse: ContractProgram.Parse
    private var kind = ContractProgram.Kind.tcp4
    private var l3 = 14
    private let passes, drops: Assembler.Label
    private var functions: [(Assembler.Label, field: Int)] = []

    private var isTCP: Bool { kind == .tcp4 || kind == .tcp6 }
    private var isIPv6: Bool { kind == .tcp6 || kind == .udp6 }
    private var field: Int { isTCP ? 16 : 6 }
    private var headerBytes: Int { isTCP ? 20 : 8 }

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

    private mutating func program(_ bodies: [ContractProgram.Kind: ContractProgram.Body]) {
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
    private mutating func bounds(_ register: UInt8, _ count: Int, else label: Assembler.Label? = nil) {
        a.mov(2, register)
        a.add(2, imm: Int32(count))
        a.jump(.above, 2, 7, to: label ?? passes)
    }

    /// r1 is the EtherType in front of the L3 header.
    private mutating func families(_ bodies: [ContractProgram.Kind: ContractProgram.Body], l3: Int) {
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

    private mutating func dispatch(_ bodies: [ContractProgram.Kind: ContractProgram.Body], _ kinds: [(ContractProgram.Kind, Int32)]) {
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

    private mutating func emit(_ body: ContractProgram.Body) {
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
    private mutating func transport(insists: Bool) {
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
    private mutating func reload() {
        a.load(Assembler.word, 6, 9, 0)
        a.load(Assembler.word, 7, 9, 4)
        bounds(6, l3 + (isIPv6 ? 40 : 20), else: drops)
        a.add(6, imm: Int32(l3))
        transport(insists: false)
    }

    // MARK: Blocks

    private mutating func emit(_ block: ContractProgram.Block) {
        switch block {
        case .port(let isSource, let value, let fix):
            change(8, isSource ? 0 : 2, Assembler.half, to: UInt32(value), fix, inPseudoHeader: false)
        case .address(let isSource, let value, let fix):
            change(6, isIPv6 ? (isSource ? 20 : 36) : (isSource ? 12 : 16), Assembler.word, to: value, fix, inPseudoHeader: true)
        case .ttl(let isKept): ttl(isKept)
        case .portUnlessZero(let value, let writesOnes): portUnlessZero(value, writesOnes)
        case .fromScratch: fromScratch()
        case .noChecksum: if kind == .udp4 { a.store(Assembler.half, 8, 6, imm: 0) }
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

    /// A number of 2 or 4 bytes gets a value, and the checksums follow.
    private mutating func change(_ base: UInt8, _ offset: Int, _ size: UInt8, to value: UInt32, _ fix: ContractProgram.Fix, inPseudoHeader: Bool) {
        if fix == .early {
            a.load(Assembler.half, 1, 8, field)
            a.store(Assembler.double, 10, -56, 1)
        }
        a.load(size, 2, base, offset)
        a.mov(3, imm: Int32(bitPattern: value))
        if size == Assembler.word {
            a.shl(3, 32)
            a.shr(3, 32)
        }
        a.store(size, base, offset, 3)
        if fix == .none { return }
        let bits: UInt8 = size == Assembler.word ? 32 : 16
        if inPseudoHeader, !isIPv6 {
            a.store(Assembler.double, 10, -64, 2)
            a.store(Assembler.double, 10, -72, 3)
            follow(.folded, 6, 10, bits)
            a.load(Assembler.double, 2, 10, -64)
            a.load(Assembler.double, 3, 10, -72)
        }
        follow(fix, 8, field, bits)
    }

    /// The checksum at `base + offset` follows a change from r2 to r3.
    private mutating func follow(_ fix: ContractProgram.Fix, _ base: UInt8, _ offset: Int, _ bits: UInt8) {
        switch fix {
        case .none: return
        case .difference, .chain:
            a.store(Assembler.word, 10, -40, 2)
            a.store(Assembler.word, 10, -36, 3)
            if fix == .difference {
                pointer(1, -40)
                a.mov(2, imm: 4)
                pointer(3, -36)
                a.mov(4, imm: 4)
                a.load(Assembler.half, 5, base, offset)
                a.xor(5, imm: 0xffff)
                a.call(helper: 28)
                a.mov(1, 0)
            } else {
                pointer(1, -40)
                a.mov(2, imm: 4)
                a.mov(3, imm: 0)
                a.mov(4, imm: 0)
                a.mov(5, imm: 0)
                a.call(helper: 28)
                a.mov(5, 0)
                a.mov(1, imm: 0)
                a.mov(2, imm: 0)
                pointer(3, -36)
                a.mov(4, imm: 4)
                a.call(helper: 28)
                a.load(Assembler.half, 1, base, offset)
                a.xor(1, imm: 0xffff)
                a.add(1, 0)
            }
        case .carries:
            a.load(Assembler.half, 1, base, offset)
            a.xor(1, imm: 0xffff)
            for (register, isOld) in [(UInt8(2), true), (3, false)] {
                for part in 0..<(bits / 16) {
                    a.mov(4, register)
                    if part > 0 { a.shr(4, 16) }
                    a.and(4, imm: 0xffff)
                    if isOld { a.xor(4, imm: 0xffff) }
                    a.add(1, 4)
                    let small = a.label()
                    a.jump(.atMost, 1, imm: 0xffff, to: small)
                    a.add(1, imm: -0xffff)
                    a.place(small)
                }
            }
        case .subprogram:
            let function = a.label()
            functions.append((function, offset))
            a.mov(1, base)
            if bits == 32 { fold(2); fold(3) }
            a.call(function)
            return
        case .spilled:
            a.load(Assembler.half, 1, base, offset)
            a.store(Assembler.half, 10, -48, 1)
            a.load(Assembler.byte, 1, 10, -47)
            a.shl(1, 8)
            a.load(Assembler.byte, 4, 10, -48)
            a.emit(0x4f, 1, 4)
            difference(bits)
        case .early:
            a.load(Assembler.double, 1, 10, -56)
            difference(bits)
        case .folded, .loop, .unfolded:
            a.load(Assembler.half, 1, base, offset)
            difference(bits)
        }
        switch fix {
        case .loop:
            let again = a.label(), done = a.label()
            a.place(again)
            a.mov(2, 1)
            a.shr(2, 16)
            a.jump(.equal, 2, imm: 0, to: done)
            a.and(1, imm: 0xffff)
            a.add(1, 2)
            a.jump(to: again)
            a.place(done)
        case .carries: break
        case .unfolded:
            a.mov(2, 1)
            a.shr(2, 32)
            a.shl(1, 32)
            a.shr(1, 32)
            a.add(1, 2)
            fold(1)
        default: fold(1)
        }
        a.xor(1, imm: 0xffff)
        a.store(Assembler.half, base, offset, 1)
    }

    /// r1, a checksum, becomes the sum that RFC 1624 folds: ~HC + ~m + m'.
    private mutating func difference(_ bits: UInt8) {
        a.xor(1, imm: 0xffff)
        if bits == 16 { a.xor(2, imm: 0xffff) } else {
            a.mov(4, imm: -1)
            a.shr(4, 32)
            a.emit(0xaf, 2, 4)
        }
        a.add(1, 2)
        a.add(1, 3)
    }

    /// Of up to 48 bits.
    private mutating func fold(_ register: UInt8) {
        for _ in 0..<4 {
            a.mov(0, register)
            a.shr(0, 16)
            a.and(register, imm: 0xffff)
            a.add(register, 0)
        }
    }

    private mutating func pointer(_ register: UInt8, _ offset: Int32) {
        a.mov(register, 10)
        a.add(register, imm: offset)
    }

    /// r1: a header, r2 and r3: 16-bit numbers.
    private mutating func function(_ label: Assembler.Label, _ field: Int) {
        a.place(label)
        a.load(Assembler.half, 4, 1, field)
        a.xor(4, imm: 0xffff)
        a.xor(2, imm: 0xffff)
        a.add(4, 2)
        a.add(4, 3)
        fold(4)
        a.xor(4, imm: 0xffff)
        a.store(Assembler.half, 1, field, 4)
        a.mov(0, imm: 0)
        a.exit()
    }

    private mutating func ttl(_ isKept: Bool) {
        let at = isIPv6 ? 7 : 8
        a.load(Assembler.byte, 1, 6, at)
        a.add(1, imm: -1)
        a.store(Assembler.byte, 6, at, 1)
        guard isKept, !isIPv6 else { return }
        // ~m + m' of a byte that falls by one is 0xfeff: the field grows by 0x0100.
        a.load(Assembler.half, 1, 6, 10)
        a.add(1, imm: 1)
        fold(1)
        a.store(Assembler.half, 6, 10, 1)
    }

    private mutating func portUnlessZero(_ value: UInt16, _ writesOnes: Bool) {
        let bare = a.label()
        a.load(Assembler.half, 2, 8, 2)
        a.store(Assembler.half, 8, 2, imm: Int32(value))
        a.load(Assembler.half, 1, 8, field)
        a.jump(.equal, 1, imm: 0, to: bare)
        a.mov(3, imm: Int32(value))
        difference(16)
        fold(1)
        a.xor(1, imm: 0xffff)
        if writesOnes {
            let some = a.label()
            a.jump(.notEqual, 1, imm: 0, to: some)
            a.mov(1, imm: 0xffff)
            a.place(some)
        }
        a.store(Assembler.half, 8, field, 1)
        a.place(bare)
    }

    /// r3: bytes of the L4 datagram.
    private mutating func transportLength() {
        if !isTCP {
            a.load(Assembler.half, 3, 8, 4)
            a.swap(3, bits: 16)
        } else {
            a.load(Assembler.half, 3, 6, isIPv6 ? 4 : 2)
            a.swap(3, bits: 16)
            if !isIPv6 {
                a.load(Assembler.byte, 1, 6, 0)
                a.and(1, imm: 15)
                a.shl(1, 2)
                if parse == .options { a.emit(0x1f, 3, 1) } else { a.add(3, imm: -20) }
            }
        }
        a.and(3, imm: 0x3fff)
    }

    /// r0: sum over the datagram and its pseudo-header, not folded. Jumps where it is not all there.
    private mutating func sum(else out: Assembler.Label) {
        transportLength()
        a.mov(4, 8)
        a.add(4, 3)
        a.jump(.above, 4, 7, to: out)
        a.swap(3, bits: 16)
        a.mov(0, 3)
        a.add(0, imm: isTCP ? 0x0600 : 0x1100)
        for at in stride(from: isIPv6 ? 8 : 12, to: isIPv6 ? 40 : 20, by: 2) {
            a.load(Assembler.half, 1, 6, at)
            a.add(0, 1)
        }
        let again = a.label(), odd = a.label(), done = a.label()
        a.mov(5, 8)
        a.place(again)
        a.mov(3, 5)
        a.add(3, imm: 2)
        a.jump(.above, 3, 4, to: odd)
        a.load(Assembler.half, 1, 5, 0)
        a.add(0, 1)
        a.mov(5, 3)
        a.jump(to: again)
        a.place(odd)
        a.jump(.atLeast, 5, 4, to: done)
        a.load(Assembler.byte, 1, 5, 0)
        a.add(0, 1)
        a.place(done)
    }

    private mutating func fromScratch() {
        let out = a.label()
        transportLength()
        a.mov(4, 8)
        a.add(4, 3)
        a.jump(.above, 4, 7, to: out)
        a.store(Assembler.half, 8, field, imm: 0)
        sum(else: out)
        a.mov(1, 0)
        fold(1)
        a.xor(1, imm: 0xffff)
        if !isTCP {
            let some = a.label()
            a.jump(.notEqual, 1, imm: 0, to: some)
            a.mov(1, imm: 0xffff)
            a.place(some)
        }
        a.store(Assembler.half, 8, field, 1)
        a.place(out)
    }

    private mutating func roundTrip(_ trip: ContractProgram.Trip) {
        switch trip {
        case .self_: a.load(Assembler.half, 1, 8, field)
        case .swaps:
            a.load(Assembler.half, 1, 8, field)
            a.swap(1, bits: 16)
            a.swap(1, bits: 16)
        case .stack:
            a.load(Assembler.half, 1, 8, field)
            a.store(Assembler.double, 10, -32, 1)
            a.load(Assembler.half, 1, 10, -32)
        case .bytes:
            a.load(Assembler.byte, 1, 8, field + 1)
            a.shl(1, 8)
            a.load(Assembler.byte, 2, 8, field)
            a.emit(0x4f, 1, 2)
        }
        a.store(Assembler.half, 8, field, 1)
    }

    private mutating func payload(_ at: Int, _ value: UInt8, _ isKept: Bool) {
        let out = a.label(), place = headerBytes + at & ~1
        bounds(8, place + 2, else: out)
        a.load(Assembler.half, 2, 8, place)
        a.store(Assembler.byte, 8, place, imm: Int32(value))
        a.load(Assembler.half, 3, 8, place)
        if isKept { follow(.folded, 8, field, 16) }
        a.place(out)
    }

    private mutating func lookup(else out: Assembler.Label) {
        a.map(1, 0)
        pointer(2, -4)
        a.call(helper: 1)
        a.jump(.equal, 0, imm: 0, to: out)
    }

    private mutating func count(_ byPort: Bool) {
        let out = a.label()
        a.store(Assembler.word, 10, -4, imm: 0)
        if byPort {
            a.load(Assembler.half, 1, 8, 0)
            a.and(1, imm: 3)
            a.store(Assembler.word, 10, -4, 1)
        }
        lookup(else: out)
        a.mov(1, imm: 1)
        a.emit(0xdb, 0, 1)
        a.place(out)
    }

    private mutating func macSwap() {
        for at in stride(from: 0, to: 6, by: 2) {
            a.load(Assembler.half, 1, 6, at - l3)
            a.load(Assembler.half, 2, 6, at + 6 - l3)
            a.store(Assembler.half, 6, at - l3, 2)
            a.store(Assembler.half, 6, at + 6 - l3, 1)
        }
    }

    // MARK: The packet's ends

    private mutating func adjustHead(_ delta: Int32) {
        a.mov(1, 9)
        a.mov(2, imm: delta)
        a.call(helper: 44)
        a.jump(.notEqual, 0, imm: 0, to: drops)
        a.load(Assembler.word, 6, 9, 0)
        a.load(Assembler.word, 7, 9, 4)
    }

    private mutating func copyMAC(from: Int) {
        for at in stride(from: 0, to: 12, by: 4) {
            a.load(Assembler.word, 1, 6, from + at)
            a.store(Assembler.word, 6, at, 1)
        }
    }

    private mutating func vlanPush(_ tag: UInt16) {
        guard l3 == 14 else { return }
        adjustHead(-4)
        bounds(6, 18, else: drops)
        copyMAC(from: 4)
        a.store(Assembler.half, 6, 12, imm: 0x0081)
        a.store(Assembler.half, 6, 14, imm: Int32(tag.byteSwapped))
        l3 += 4
        reload()
    }

    /// The last two bytes of a UDP datagram go, and its lengths and checksum follow.
    private mutating func trim() {
        guard !isTCP else { return }
        let out = a.label()
        transportLength()
        a.mov(1, 3)
        a.and(1, imm: 1)
        a.jump(.notEqual, 1, imm: 0, to: out)
        a.jump(.below, 3, imm: 12, to: out)
        a.mov(4, 8)
        a.add(4, 3)
        a.jump(.notEqual, 4, 7, to: out)
        a.load(Assembler.half, 2, 4, -2)
        a.mov(3, imm: 0)
        follow(.folded, 8, 6, 16)
        // The length stands in the header and in the pseudo-header.
        a.load(Assembler.half, 2, 8, 4)
        a.mov(3, 2)
        a.swap(3, bits: 16)
        a.add(3, imm: -2)
        a.swap(3, bits: 16)
        a.store(Assembler.half, 8, 4, 3)
        a.store(Assembler.double, 10, -64, 2)
        a.store(Assembler.double, 10, -72, 3)
        follow(.folded, 8, 6, 16)
        a.load(Assembler.double, 2, 10, -64)
        a.load(Assembler.double, 3, 10, -72)
        follow(.folded, 8, 6, 16)
        a.load(Assembler.half, 2, 6, isIPv6 ? 4 : 2)
        a.mov(3, 2)
        a.swap(3, bits: 16)
        a.add(3, imm: -2)
        a.swap(3, bits: 16)
        a.store(Assembler.half, 6, isIPv6 ? 4 : 2, 3)
        if !isIPv6 { follow(.folded, 6, 10, 16) }
        a.mov(1, 9)
        a.mov(2, imm: -2)
        a.call(helper: 65)
        a.jump(.notEqual, 0, imm: 0, to: drops)
        reload()
        a.place(out)
    }

    /// A 20-byte IPv4 header at r6 + 14, `total` bytes from r3; then its checksum.
    private mutating func outerHeader(proto: Int32) {
        a.store(Assembler.half, 6, 14, imm: 0x0045)
        a.store(Assembler.half, 6, 16, 3)
        a.store(Assembler.word, 6, 18, imm: 0)
        a.store(Assembler.half, 6, 22, imm: 64 | proto << 8)
        a.store(Assembler.half, 6, 24, imm: 0)
        a.store(Assembler.word, 6, 26, imm: 0x0100_000a)
        a.store(Assembler.word, 6, 30, imm: 0x0900_000a)
        a.mov(1, imm: 0)
        for at in stride(from: 14, to: 34, by: 2) {
            a.load(Assembler.half, 2, 6, at)
            a.add(1, 2)
        }
        fold(1)
        a.xor(1, imm: 0xffff)
        a.store(Assembler.half, 6, 24, 1)
    }

    private mutating func encapsulate() {
        guard l3 == 14 else { return a.jump(to: passes) }
        adjustHead(-20)
        bounds(6, 54, else: drops)
        copyMAC(from: 20)
        a.store(Assembler.half, 6, 12, imm: 0x0008)
        a.load(Assembler.half, 3, 6, 36)
        a.swap(3, bits: 16)
        a.add(3, imm: 20)
        a.swap(3, bits: 16)
        outerHeader(proto: 4)
        a.mov(0, imm: 3)
        a.exit()
    }

    private mutating func decapsulate() {
        guard l3 == 14 else { return a.jump(to: passes) }
        a.load(Assembler.byte, 1, 6, 0)
        a.jump(.notEqual, 1, imm: 0x45, to: passes)
        for at in stride(from: 0, to: 12, by: 4) {
            a.load(Assembler.word, 1, 6, at - 14)
            a.store(Assembler.word, 10, at - 80, 1)
        }
        adjustHead(20)
        bounds(6, 34, else: drops)
        for at in stride(from: 0, to: 12, by: 4) {
            a.load(Assembler.word, 1, 10, at - 80)
            a.store(Assembler.word, 6, at, 1)
        }
        a.store(Assembler.half, 6, 12, imm: 0x0008)
        a.jump(to: passes)
    }

    private mutating func quote(_ count: Int) {
        guard l3 == 14 else { return a.jump(to: passes) }
        bounds(6, count)
        a.mov(4, 6)
        a.add(4, imm: -14)
        a.mov(3, 7)
        a.emit(0x1f, 3, 4)
        a.mov(2, imm: Int32(14 + count))
        a.emit(0x1f, 2, 3)
        a.mov(1, 9)
        a.call(helper: 65)
        a.jump(.notEqual, 0, imm: 0, to: drops)
        adjustHead(-28)
        bounds(6, 42 + count, else: drops)
        copyMAC(from: 28)
        a.store(Assembler.half, 6, 12, imm: 0x0008)
        a.mov(3, imm: Int32(UInt16(28 + count).byteSwapped))
        outerHeader(proto: 1)
        a.store(Assembler.word, 6, 34, imm: 0x0403)
        a.store(Assembler.word, 6, 38, imm: 0xdc05 << 8)
        a.mov(1, imm: 0)
        a.mov(2, imm: 0)
        a.mov(3, 6)
        a.add(3, imm: 34)
        a.mov(4, imm: Int32(8 + count))
        a.mov(5, imm: 0)
        a.call(helper: 28)
        a.mov(1, 0)
        fold(1)
        a.xor(1, imm: 0xffff)
        a.store(Assembler.half, 6, 36, 1)
        a.mov(0, imm: 3)
        a.exit()
    }

    // MARK: Looks

    private mutating func emit(_ look: ContractProgram.Look) {
        let out = a.label()
        switch look {
        case .verdict:
            a.load(Assembler.half, 1, 8, field)
            a.and(1, imm: 0x11)
            a.jump(.equal, 1, imm: 0, to: drops)
        case .map:
            a.store(Assembler.word, 10, -4, imm: 1)
            lookup(else: out)
            a.load(Assembler.half, 1, 8, field)
            a.store(Assembler.half, 0, 8, 1)
        case .packet:
            a.load(Assembler.byte, 1, 8, field)
            a.store(Assembler.byte, 6, 5 - l3, 1)
        case .key:
            a.load(Assembler.byte, 1, 8, field + 1)
            a.and(1, imm: 3)
            a.store(Assembler.word, 10, -4, 1)
            lookup(else: out)
            a.mov(1, imm: 1)
            a.emit(0xdb, 0, 1)
        case .wordAround:
            a.load(Assembler.word, 1, 8, field - 2)
            a.and(1, imm: 0x30000)
            a.jump(.equal, 1, imm: 0, to: drops)
        case .doubleAround:
            a.load(Assembler.double, 1, 8, field - 6)
            a.shr(1, 60)
            a.jump(.equal, 1, imm: 3, to: drops)
        case .udpZero:
            a.load(Assembler.half, 1, 8, field)
            a.jump(.equal, 1, imm: 0, to: drops)
        case .verify:
            if !isTCP {
                a.load(Assembler.half, 1, 8, field)
                a.jump(.equal, 1, imm: 0, to: out)
            }
            sum(else: out)
            a.mov(1, 0)
            fold(1)
            a.jump(.notEqual, 1, imm: 0xffff, to: drops)
        case .helper:
            a.store(Assembler.word, 10, -4, imm: 2)
            a.store(Assembler.double, 10, -88, imm: 0)
            a.load(Assembler.half, 1, 8, field)
            a.store(Assembler.double, 10, -96, 1)
            a.map(1, 0)
            pointer(2, -4)
            pointer(3, -96)
            a.mov(4, imm: 0)
            a.call(helper: 2)
        case .index:
            a.store(Assembler.word, 10, -4, imm: 3)
            lookup(else: out)
            a.load(Assembler.byte, 1, 8, field)
            a.and(1, imm: 7)
            a.mov(2, 8)
            a.add(2, 1)
            a.load(Assembler.byte, 1, 2, 0)
            a.store(Assembler.byte, 0, 12, 1)
        }
        a.place(out)
    }

    private mutating func arms(_ constant: UInt16, _ here: UInt8, _ there: UInt8, _ apart: Bool, _ shift: UInt8, _ end: ContractProgram.End) {
        let out = a.label(), join = a.label()
        if end == .map {
            a.store(Assembler.word, 10, -4, imm: 0)
            lookup(else: out)
            a.mov(5, 0)
        }
        a.load(Assembler.half, 1, 8, field)
        a.mov(2, 6)
        a.mov(3, imm: Int32(there))
        a.jump(.notEqual, 1, imm: Int32(constant), to: join)
        if apart { a.add(2, imm: 4) }
        a.mov(3, imm: Int32(here))
        a.place(join)
        if apart { a.mov(4, 2) }
        if shift > 0 { a.shl(3, Int32(shift)) }
        switch end {
        case .map: a.store(Assembler.word, 5, 12, 3)
        case .verdict: a.jump(.equal, 3, imm: Int32(here) << Int32(shift), to: drops)
        case .stack: a.store(Assembler.word, 10, -24, 3)
        case .field:
            a.add(1, 3)
            a.emit(0x1f, 1, 3)
            a.store(Assembler.half, 8, field, 1)
        case .nothing: break
        }
        a.place(out)
    }
}
