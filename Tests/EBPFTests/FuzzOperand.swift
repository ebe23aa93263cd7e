@testable import EBPF

/// What an instruction works on: the second operand's number where it is known, or the kind of pointer.
enum FuzzOperand: UInt8, CaseIterable, Sendable {
    case zero, one, minusOne, small, word, wide, min, max, unknown
    case context, packet, end, metadata, stack, lent, value, record, key
    case forward, backward
    case none

    var isNumber: Bool { rawValue <= FuzzOperand.unknown.rawValue }

    init(number: UInt64) {
        switch number {
        case 0: self = .zero
        case 1: self = .one
        case .max: self = .minusOne
        case 0x8000_0000_0000_0000, 0xffff_ffff_8000_0000, 0x8000_0000: self = .min
        case 0x7fff_ffff_ffff_ffff, 0x7fff_ffff: self = .max
        case 2...255: self = .small
        default: self = Int64(bitPattern: number) == Int64(Int32(truncatingIfNeeded: number)) || number <= 0xffff_ffff ? .word : .wide
        }
    }

    init(_ type: FuzzType) {
        switch type {
        case .scalar(.some(let number)): self = FuzzOperand(number: number)
        case .scalar(nil): self = .unknown
        case .context: self = .context
        case .packet: self = .packet
        case .packetEnd: self = .end
        case .metadata: self = .metadata
        case .stack: self = .stack
        case .lent: self = .lent
        case .record: self = .record
        case .key: self = .key
        case .value: self = .value
        // What is being computed: a pointer whose place is not known.
        case .none, .map, .function: self = .none
        }
    }

    static func of(_ i: Instruction, _ f: FuzzFunction) -> FuzzOperand {
        func kind(_ register: UInt8) -> FuzzOperand {
            register == 10 ? .stack : register < 10 ? FuzzOperand(f.types[Int(register)]) : .none
        }
        switch i.instructionClass {
        case 0x04, 0x07:
            let d = kind(i.destination)
            if i.opcode >> 4 == 0xd || i.opcode >> 4 == 0x8 { return d }
            let isMove = i.opcode >> 4 == 0xb
            let s = i.opcode & 8 == 0 ? FuzzOperand(number: UInt64(bitPattern: Int64(i.immediate))) : kind(i.source)
            // Pointer arithmetic is known by its pointer.
            return isMove || d.isNumber ? s : d
        case 0x05, 0x06:
            switch i.opcode >> 4 {
            case 0x0: return i.offset < 0 || i.immediate < 0 ? .backward : .forward
            case 0x8, 0x9: return .none
            default:
                let d = kind(i.destination), s = i.opcode & 8 == 0 ? FuzzOperand(number: UInt64(bitPattern: Int64(i.immediate))) : kind(i.source)
                if d == .packet || d == .end { return .end }
                return d.isNumber ? s : d
            }
        case 0x01: return kind(i.source)
        case 0x02, 0x03: return kind(i.destination)
        default: return .none
        }
    }
}
