@testable import EBPF

/// Statements, and what leads around them.
extension FuzzGenerator {
    mutating func statement() {
        f.fuel -= 1
        switch Int.random(in: 0..<40, using: &random) {
        case 0..<9: arithmetic()
        case 9..<12: load()
        case 12..<15: store()
        case 15..<18: atomic()
        case 18..<20: pointer()
        case 20..<24: branch()
        case 24: if f.loops == 0 { loop() }
        case 25..<31: mapStatement()
        case 31: takePacket()
        case 32..<36: helper()
        case 36..<38: if f.loops == 0 { callFunction() }
        case 38: if f.loops == 0 { callBack() }
        default: exchange()
        }
    }

    /// Something in memory, so that arithmetic has not only constants to work on.
    private mutating func exchange() {
        let s = scalar()
        emit(Asm.store(Asm.double, 10, slot(), s))
    }

    /// What is known where this way meets one on which `other` was known.
    mutating func join(_ other: [FuzzType], spilled: FuzzType? = nil) {
        for register in 0...9 { f.types[register] = f.types[register].joined(other[register]) }
        if let spilled { f.spilled = f.spilled.joined(spilled) }
    }

    // jeq jgt jge jset jne jsgt jsge jlt jle jslt jsle
    private static let conditions: [UInt8] = [0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0xa, 0xb, 0xc, 0xd]

    /// A condition on numbers.
    private mutating func condition() -> Instruction {
        let d = scalar(), opcode = pick(FuzzGenerator.conditions) << 4 | (oneIn(2) ? 0x05 : 0x06)
        if oneIn(2) { return Instruction(opcode: opcode, destination: d, immediate: immediate()) }
        let s = operand(except: d)
        return Instruction(opcode: opcode | 8, destination: d, source: s)
    }

    /// Around some statements, or to one side of two.
    mutating func branch() {
        let over = jump(condition())
        let (before, spilledBefore) = (f.types, f.spilled)
        block()
        if oneIn(2) {
            land(over)
            join(before, spilled: spilledBefore)
            return
        }
        let toEnd = jump(Instruction(opcode: oneIn(2) ? 0x05 : 0x06))
        land(over)
        let (then, spilledThen) = (f.types, f.spilled)
        (f.types, f.spilled) = (before, spilledBefore)
        // Pointers that went stale on the other side are stale only there.
        block()
        land(toEnd)
        join(then, spilled: spilledThen)
    }

    private mutating func block() {
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            if f.fuel > 0 { statement() } else { arithmetic() }
        }
    }

    /// A few rounds. What the body finds at its start it must find there again.
    mutating func loop() {
        let pinned = f.pinned
        guard (6...9).filter({ !pinned.contains($0) }).count > 1 else { return }
        let counter = free(from: 6...9)
        let rounds = Int32.random(in: 1...5, using: &random)
        let forms: [(Int32, Int32, Instruction)] = [
            (rounds, -1, Instruction(opcode: 0x55, destination: counter)),
            (0, 1, Instruction(opcode: 0xa5, destination: counter, immediate: rounds)),
            (0, 2, Instruction(opcode: 0xb6, destination: counter, immediate: rounds)),
            (-rounds, 1, Instruction(opcode: 0xc5, destination: counter)),
            (rounds, -1, Instruction(opcode: 0x65, destination: counter)),
            (rounds, -1, Instruction(opcode: 0x26, destination: counter)),
        ]
        let (first, step, back) = pick(forms)
        // Tested at the end, or at the start with a jump back behind the body.
        let isTestedFirst = oneIn(3)
        emit(Asm.mov(counter, imm: isTestedFirst ? rounds : first))
        set(counter, .scalar(nil))
        f.pinned.insert(counter)
        for register in 0...9 {
            switch f.types[register] {
            case .scalar: f.types[register] = .scalar(nil)
            case .value(let map, _) where register > 5 && map.isStable: f.pinned.insert(UInt8(register))
            case .context, .packet, .lent, .stack:
                if register > 5 { f.pinned.insert(UInt8(register)) } else { f.types[register] = .none }
            default: f.types[register] = .none
            }
        }
        let before = f.types
        let head = f.lines.count
        let out = isTestedFirst ? jump(Instruction(opcode: 0x15, destination: counter)) : nil
        f.loops += 1
        for _ in 0..<Int.random(in: 1...3, using: &random) { statement() }
        f.loops -= 1
        for register in 0...9 where before[register].isScalar && !f.types[register].isScalar {
            emit(Asm.mov(UInt8(register), imm: immediate()))
            set(UInt8(register), .scalar(nil))
        }
        if let out {
            emit(Asm.alu(0x07, counter, imm: -1))
            let distance = head - f.lines.count - 1
            emit(oneIn(2) ? Instruction(opcode: 0x05, offset: Int16(distance)) : Instruction(opcode: 0x06, immediate: Int32(distance)))
            land(out)
        } else {
            emit(Asm.alu(oneIn(2) ? 0x07 : 0x04, counter, imm: step))
            var around = back
            around.offset = Int16(head - f.lines.count - 1)
            emit(around)
        }
        f.pinned = pinned
        join(before)
    }
}
