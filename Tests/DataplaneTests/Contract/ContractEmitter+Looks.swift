@testable import EBPF

/// Looks at the checksum field, and what the program does with what it saw.
extension ContractEmitter {
    mutating func emit(_ look: ContractProgram.Look) {
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

    mutating func arms(_ constant: UInt16, _ here: UInt8, _ there: UInt8, _ apart: Bool, _ shift: UInt8, _ end: ContractProgram.End) {
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
