@testable import EBPF

/// What `VerdictBound` knows of a register.
enum BoundValue: Hashable {
    /// Nothing, not even that it is no address in a stack.
    case anything
    /// No address in a stack.
    case opaque
    case numbers(Set<UInt64>)
    /// A register's, before the function wrote to it.
    case unwritten
    /// The number of a network device.
    case device
    case context, packetEnd
    /// So many bytes behind the packet's first, and behind the end of the stack frame.
    case packet(Int), stack(Int)

    private static let numbersMax = 16

    static func some(_ numbers: Set<UInt64>) -> BoundValue { numbers.count <= numbersMax ? .numbers(numbers) : .opaque }

    func joined(_ other: BoundValue) -> BoundValue {
        if self == other { return self }
        if case .numbers(let ours) = self, case .numbers(let theirs) = other { return .some(ours.union(theirs)) }
        return mayBeStack || other.mayBeStack ? .anything : .opaque
    }

    var mayBeStack: Bool {
        switch self {
        case .anything, .stack: true
        default: false
        }
    }

    /// As another function sees it: stack addresses count from the end of its own frame.
    var abroad: BoundValue {
        if case .stack = self { return .anything }
        return self
    }
}

struct BoundState: Hashable {
    private var registers = [BoundValue](repeating: .unwritten, count: 16)
    /// Whole 64-bit words of the frame, by offset from its end.
    var slots: [Int: BoundValue] = [:]

    init() { registers[10] = .stack(0) }

    /// What a callee leaves of a register.
    mutating func forget(_ register: UInt8) { registers[Int(register)] = .unwritten }

    subscript(_ register: UInt8) -> BoundValue {
        get { registers[Int(register)] }
        set { registers[Int(register)] = newValue }
    }

    func joined(_ other: BoundState) -> BoundState {
        var result = self
        for number in registers.indices { result.registers[number] = registers[number].joined(other.registers[number]) }
        result.slots = slots.merging(other.slots) { $0.joined($1) }.filter { slots[$0.key] != nil && other.slots[$0.key] != nil }
        return result
    }
}

/// Arithmetic and comparisons on what is known.
enum BoundArithmetic {
    static func immediate(_ i: Instruction) -> BoundValue { .numbers([UInt64(bitPattern: Int64(i.immediate))]) }

    static func result(_ i: Instruction, _ left: BoundValue, _ register: BoundValue) -> BoundValue {
        let is64 = i.instructionClass == 0x07, operation = i.opcode & 0xf0
        let right = i.opcode & 8 != 0 && operation != 0x80 ? register : immediate(i)
        if operation == 0xb0 && i.offset == 0 && (is64 || right == .device) { return right }
        if is64, let moved = moved(operation, left, right) { return moved }
        if case .numbers(let right) = right {
            var results: Set<UInt64> = []
            switch left {
            case .numbers(let left) where operation != 0xb0:
                for a in left { for b in right { if let value = value(operation, is64, a, b) { results.insert(value) } else { return .opaque } } }
                return .some(results)
            // A mask of few bits leaves few numbers.
            case _ where operation == 0x50 && right.count == 1 && right.first! < 8: return .some(Set((0...right.first!).filter { $0 & ~right.first! == 0 }))
            case _ where operation == 0xb0 && i.offset == 0: return .some(Set(right.map { $0 & 0xffff_ffff }))
            default: break
            }
        }
        // An address cut to 32 bits is none.
        return is64 && (left.mayBeStack || right.mayBeStack) ? .anything : .opaque
    }

    /// Addresses by constant distances.
    private static func moved(_ operation: UInt8, _ left: BoundValue, _ right: BoundValue) -> BoundValue? {
        guard operation == 0x00 || operation == 0x10, case .numbers(let all) = right, all.count == 1 else { return nil }
        let distance = Int(Int64(bitPattern: all.first!))
        guard abs(distance) < 1 << 20 else { return nil }
        switch left {
        case .packet(let offset): return .packet(operation == 0 ? offset + distance : offset - distance)
        case .stack(let offset): return .stack(operation == 0 ? offset + distance : offset - distance)
        default: return nil
        }
    }

    private static func value(_ operation: UInt8, _ is64: Bool, _ a: UInt64, _ b: UInt64) -> UInt64? {
        let (a, b) = is64 ? (a, b) : (a & 0xffff_ffff, b & 0xffff_ffff), shift = b & (is64 ? 63 : 31)
        let whole: UInt64
        switch operation {
        case 0x00: whole = a &+ b
        case 0x10: whole = a &- b
        case 0x20: whole = a &* b
        case 0x40: whole = a | b
        case 0x50: whole = a & b
        case 0x60: whole = a << shift
        case 0x70: whole = a >> shift
        case 0x80: whole = 0 &- a
        case 0xa0: whole = a ^ b
        case 0xc0: whole = is64 ? UInt64(bitPattern: Int64(bitPattern: a) >> Int64(shift)) : UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: a) >> Int32(shift)))
        default: return nil
        }
        return is64 ? whole : whole & 0xffff_ffff
    }

    /// What the left side is where the jump is taken, and where it is not; nil where that never is. And what that rests on.
    static func outcomes(_ i: Instruction, _ left: BoundValue, _ right: BoundValue) -> (taken: BoundValue?, fallen: BoundValue?, fact: VerdictBound.Fact?) {
        let is64 = i.instructionClass == 0x05, operation = i.opcode & 0xf0
        func decided(_ answer: Bool, _ fact: VerdictBound.Fact) -> (BoundValue?, BoundValue?, VerdictBound.Fact?) {
            answer ? (left, nil, fact) : (nil, left, fact)
        }
        switch (left, right) {
        case (.numbers(let ours), .numbers(let theirs)):
            let taken = ours.filter { a in theirs.contains { compare(operation, is64, a, $0) ?? true } }
            let fallen = ours.filter { a in theirs.contains { !(compare(operation, is64, a, $0) ?? false) } }
            return (taken.isEmpty ? nil : .numbers(taken), fallen.isEmpty ? nil : .numbers(fallen), nil)
        case (.opaque, .numbers(let theirs)) where is64 && theirs.count == 1 && operation == 0x10: return (right, left, nil)
        case (.opaque, .numbers(let theirs)) where is64 && theirs.count == 1 && operation == 0x50: return (left, right, nil)
        case (.device, .numbers([0])) where [0x10, 0xb0, 0xd0].contains(operation): return decided(false, .device)
        case (.device, .numbers([0])) where [0x50, 0x20, 0x60].contains(operation): return decided(true, .device)
        case (.device, .numbers([1])) where [0xa0, 0xc0].contains(operation): return decided(false, .device)
        case (.device, .numbers([1])) where [0x30, 0x70].contains(operation): return decided(true, .device)
        case (.packet(let offset), .packetEnd):
            if offset <= 14 && operation == 0x20 || offset < 14 && operation == 0x30 { return decided(false, .length) }
            if offset <= 14 && operation == 0xb0 || offset < 14 && operation == 0xa0 { return decided(true, .length) }
        case (.packetEnd, .packet(let offset)):
            if offset <= 14 && operation == 0xa0 || offset < 14 && operation == 0xb0 { return decided(false, .length) }
            if offset <= 14 && operation == 0x30 || offset < 14 && operation == 0x20 { return decided(true, .length) }
        default: break
        }
        return (left, left, nil)
    }

    private static func compare(_ operation: UInt8, _ is64: Bool, _ a: UInt64, _ b: UInt64) -> Bool? {
        let (a, b) = is64 ? (a, b) : (a & 0xffff_ffff, b & 0xffff_ffff)
        let (x, y) = is64 ? (Int64(bitPattern: a), Int64(bitPattern: b)) : (Int64(Int32(truncatingIfNeeded: a)), Int64(Int32(truncatingIfNeeded: b)))
        switch operation {
        case 0x10: return a == b
        case 0x20: return a > b
        case 0x30: return a >= b
        case 0x40: return a & b != 0
        case 0x50: return a != b
        case 0x60: return x > y
        case 0x70: return x >= y
        case 0xa0: return a < b
        case 0xb0: return a <= b
        case 0xc0: return x < y
        case 0xd0: return x <= y
        default: return nil
        }
    }
}
