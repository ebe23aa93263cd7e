@testable import EBPF

/// BPF instructions with labels. Sizes are opcode bits.
struct Assembler {
    static let word: UInt8 = 0x00, half: UInt8 = 0x08, byte: UInt8 = 0x10, double: UInt8 = 0x18

    struct Label { fileprivate let number: Int }

    private var code: [Instruction] = []
    private var places: [Int?] = []
    private var fixups: [(at: Int, label: Label)] = []

    mutating func label() -> Label {
        places.append(nil)
        return Label(number: places.count - 1)
    }

    mutating func place(_ label: Label) { places[label.number] = code.count }

    mutating func emit(_ opcode: UInt8, _ d: UInt8 = 0, _ s: UInt8 = 0, offset: Int16 = 0, imm: Int32 = 0) {
        code.append(Instruction(opcode: opcode, destination: d, source: s, offset: offset, immediate: imm))
    }

    mutating func mov(_ d: UInt8, _ s: UInt8) { emit(0xbf, d, s) }
    mutating func mov(_ d: UInt8, imm: Int32) { emit(0xb7, d, imm: imm) }
    mutating func load(_ size: UInt8, _ d: UInt8, _ s: UInt8, _ offset: Int) { emit(0x61 | size, d, s, offset: Int16(offset)) }
    mutating func store(_ size: UInt8, _ d: UInt8, _ offset: Int, _ s: UInt8) { emit(0x63 | size, d, s, offset: Int16(offset)) }
    mutating func store(_ size: UInt8, _ d: UInt8, _ offset: Int, imm: Int32) { emit(0x62 | size, d, offset: Int16(offset), imm: imm) }
    mutating func add(_ d: UInt8, _ s: UInt8) { emit(0x0f, d, s) }
    mutating func add(_ d: UInt8, imm: Int32) { emit(0x07, d, imm: imm) }
    mutating func and(_ d: UInt8, imm: Int32) { emit(0x57, d, imm: imm) }
    mutating func xor(_ d: UInt8, imm: Int32) { emit(0xa7, d, imm: imm) }
    mutating func shl(_ d: UInt8, _ n: Int32) { emit(0x67, d, imm: n) }
    mutating func shr(_ d: UInt8, _ n: Int32) { emit(0x77, d, imm: n) }
    /// Network order to host order, or back.
    mutating func swap(_ d: UInt8, bits: Int32) { emit(0xdc, d, imm: bits) }
    mutating func call(helper: Int32) { emit(0x85, imm: helper) }
    mutating func exit() { emit(0x95) }

    mutating func map(_ d: UInt8, _ index: Int32) {
        emit(0x18, d, 1, imm: index)
        emit(0)
    }

    enum Condition: UInt8 { case equal = 0x15, notEqual = 0x55, above = 0x25, atLeast = 0x35, below = 0xa5, atMost = 0xb5, anyBit = 0x45 }

    mutating func jump(_ condition: Condition, _ d: UInt8, imm: Int32, to label: Label) {
        fixups.append((code.count, label))
        emit(condition.rawValue, d, imm: imm)
    }

    mutating func jump(_ condition: Condition, _ d: UInt8, _ s: UInt8, to label: Label) {
        fixups.append((code.count, label))
        emit(condition.rawValue | 8, d, s)
    }

    mutating func jump(to label: Label) {
        fixups.append((code.count, label))
        emit(0x05)
    }

    mutating func call(_ function: Label) {
        fixups.append((code.count, function))
        emit(0x85, 0, 1)
    }

    func finished() -> [Instruction] {
        var code = code
        for (at, label) in fixups {
            guard let place = places[label.number] else { preconditionFailure("a jump to a label that is nowhere") }
            if code[at].isLocalCall { code[at].immediate = Int32(place - at - 1) } else { code[at].offset = Int16(place - at - 1) }
        }
        return code
    }
}
