@testable import EBPF

/// Cases as text, to be kept and read: packets and instructions in hexadecimal, each instruction with its name.
enum FuzzText {
    struct Unreadable: Error, CustomStringConvertible { let description: String }

    static func hex(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef")
        return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    static func write(_ program: FuzzProgram, remarks: [String]) -> String {
        var lines = remarks.map { "# \($0)" }
        lines += program.packets.map { "packet \(hex($0))" }
        for (at, i) in program.code.enumerated() {
            lines.append("code \(hex(i.encoded)) # \(at): " + (i.opcode == 0 ? "" : "\(name(FuzzCell.row(i, helpers: true))) r\(i.destination) r\(i.source) \(i.offset) \(i.immediate)"))
        }
        return lines.joined(separator: "\n") + "\n"
    }

    static func read(_ text: String) throws -> FuzzProgram {
        var program = FuzzProgram(code: [], packets: [])
        for raw in text.split(separator: "\n") {
            let line = raw.prefix { $0 != "#" }.split(separator: " ")
            guard let word = line.first else { continue }
            guard line.count == 2, let bytes = MapContents.bytes(line[1]) else { throw Unreadable(description: String(raw)) }
            switch word {
            case "packet": program.packets.append(bytes)
            case "code" where bytes.count == 8: program.code.append(try Instruction(ByteView(bytes), at: 0))
            default: throw Unreadable(description: String(raw))
            }
        }
        return program
    }

    // MARK: Names

    static func name(_ row: UInt32) -> String {
        if row >> 31 != 0 { return "call " + KernelNames.helper(Int32(row & 0x7fff_ffff)).replacing("bpf_", with: "") }
        let opcode = UInt8(truncatingIfNeeded: row), variant = Int(row >> 8)
        switch opcode & 7 {
        case 0x04, 0x07: return arithmetic(opcode, variant, width: opcode & 7 == 7 ? "64" : "32")
        case 0x05, 0x06: return jump(opcode, variant, width: opcode & 7 == 5 ? "64" : "32")
        case 0x01: return (opcode & 0xe0 == 0x80 ? "ldxs" : "ldx") + size(opcode)
        case 0x02: return "st" + size(opcode)
        case 0x03 where opcode & 0xe0 == 0xc0: return atomic(variant) + (opcode == 0xdb ? "64" : "32")
        case 0x03: return "stx" + size(opcode)
        default: return "lddw" + (["", " map", " value", "", " function"].indices.contains(variant) ? ["", " map", " value", "", " function"][variant] : "")
        }
    }

    private static func size(_ opcode: UInt8) -> String { ["w", "h", "b", "dw"][Int(opcode >> 3 & 3)] }

    private static func arithmetic(_ opcode: UInt8, _ variant: Int, width: String) -> String {
        let names = ["add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "neg", "mod", "xor", "mov", "arsh", "end", "?", "?"]
        let source = opcode & 8 == 0 ? " K" : " X", kind = Int(opcode >> 4)
        switch kind {
        case 0x8: return "neg" + width
        case 0xd: return (width == "64" ? "bswap" : opcode & 8 == 0 ? "le" : "be") + "\(variant)"
        case 0xb where variant != 0: return "movsx\(variant) to \(width)"
        default: return (variant == 1 ? "s" : "") + names[kind] + width + source
        }
    }

    private static func jump(_ opcode: UInt8, _ variant: Int, width: String) -> String {
        let names = ["ja", "jeq", "jgt", "jge", "jset", "jne", "jsgt", "jsge", "call", "exit", "jlt", "jle", "jslt", "jsle", "?", "?"]
        switch opcode >> 4 {
        case 0x0: return width == "64" ? "ja" : "gotol"
        case 0x8: return "call function"
        case 0x9: return "exit"
        default: return names[Int(opcode >> 4)] + width + (opcode & 8 == 0 ? " K" : " X")
        }
    }

    private static func atomic(_ kind: Int) -> String {
        switch kind {
        case 0x00: "atomic add"
        case 0x40: "atomic or"
        case 0x50: "atomic and"
        case 0xa0: "atomic xor"
        case 0x01: "fetch add"
        case 0x41: "fetch or"
        case 0x51: "fetch and"
        case 0xa1: "fetch xor"
        case 0xe1: "xchg"
        default: "cmpxchg"
        }
    }
}

extension FuzzCell {
    static func row(_ i: Instruction, helpers: Bool) -> UInt32 {
        helpers && i.isHelperCall ? helper(UInt32(bitPattern: i.immediate) & 0x7fff_ffff) : row(i)
    }
}
