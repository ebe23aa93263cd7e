import CBPF

@testable import EBPF

/// Instructions by name, for vectors: sizes are opcode bits (0x00 word, 0x08 half, 0x10 byte, 0x18 double).
enum Asm {
    static let word: UInt8 = 0x00, half: UInt8 = 0x08, byte: UInt8 = 0x10, double: UInt8 = 0x18

    static func alu(_ opcode: UInt8, _ d: UInt8, _ s: UInt8 = 0, offset: Int16 = 0, imm: Int32 = 0) -> Instruction {
        Instruction(opcode: opcode, destination: d, source: s, offset: offset, immediate: imm)
    }
    static func mov(_ d: UInt8, _ s: UInt8) -> Instruction { alu(0xbf, d, s) }
    static func mov(_ d: UInt8, imm: Int32) -> Instruction { alu(0xb7, d, imm: imm) }
    static func load64(_ d: UInt8, _ value: UInt64) -> [Instruction] {
        [alu(0x18, d, imm: Int32(truncatingIfNeeded: value)), alu(0, 0, imm: Int32(truncatingIfNeeded: value >> 32))]
    }
    static func load(_ size: UInt8, _ d: UInt8, _ s: UInt8, _ offset: Int16, signed: Bool = false) -> Instruction {
        Instruction(opcode: (signed ? 0x81 : 0x61) | size, destination: d, source: s, offset: offset)
    }
    static func store(_ size: UInt8, _ d: UInt8, _ offset: Int16, _ s: UInt8) -> Instruction {
        Instruction(opcode: 0x63 | size, destination: d, source: s, offset: offset)
    }
    static func store(_ size: UInt8, _ d: UInt8, _ offset: Int16, imm: Int32) -> Instruction {
        Instruction(opcode: 0x62 | size, destination: d, offset: offset, immediate: imm)
    }
    static func atomic(_ is64: Bool, _ kind: Int32, _ d: UInt8, _ offset: Int16, _ s: UInt8) -> Instruction {
        Instruction(opcode: is64 ? 0xdb : 0xc3, destination: d, source: s, offset: offset, immediate: kind)
    }
    static func call(_ helper: Int32) -> Instruction { Instruction(opcode: 0x85, immediate: helper) }
    static func callLocal(_ distance: Int32) -> Instruction { Instruction(opcode: 0x85, source: 1, immediate: distance) }
    static let exit = Instruction(opcode: 0x95)

    /// r6 = data, r3 and r4 the packet's first two 64-bit words; `body`; r3, r4, r5 and r0 stored behind them. Packets
    /// have 64 bytes. What the kernel's verifier accepts around any `body` over those registers.
    static func harness(_ body: [Instruction]) -> [Instruction] {
        [load(word, 6, 1, 0), load(word, 7, 1, 4), mov(2, 6), alu(0x07, 2, imm: 64), alu(0xbd, 2, 7, offset: 2),
         mov(0, imm: 0), exit, load(double, 3, 6, 0), load(double, 4, 6, 8), mov(5, imm: 0), mov(0, imm: 0)]
            + body
            + [store(double, 6, 16, 3), store(double, 6, 24, 4), store(double, 6, 32, 5), store(double, 6, 40, 0), mov(0, imm: 2), exit]
    }

    static func words(_ values: [UInt64]) -> [UInt8] {
        values.flatMap { value in (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    }

    static func word(_ bytes: [UInt8], _ index: Int) -> UInt64 {
        (0..<8).reduce(0) { $0 | UInt64(bytes[index * 8 + $1]) << (8 * UInt64($1)) }
    }
}

extension LoadedProgram {
    /// Unverified: only for code known to be good, unless it is `sandboxed`.
    /// - Parameter isVerified: what the analysis is told.
    static func bare(_ instructions: [Instruction], maps: [MapDefinition] = [], sandboxed: Bool = false, isVerified: Bool? = nil) throws(LoadError) -> LoadedProgram {
        let linked = LinkedProgram(name: "bare", instructions: instructions, maps: maps)
        return try ProgramSet(linked.object, isSandboxed: sandboxed, isVerified: isVerified).load([linked])
    }
}

/// Bare instructions, loaded into the kernel.
final class KernelCode {
    struct Refused: Error, CustomStringConvertible { let description: String }

    let descriptor: Int32

    init(_ instructions: [Instruction]) throws {
        let bytes = instructions.flatMap(\.encoded)
        var log = [CChar](repeating: 0, count: 1 << 16)
        descriptor = unsafe apus_program_load(bytes, instructions.count, &log, UInt32(log.count))
        if descriptor < 0 {
            throw Refused(description: String(decoding: log.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
        }
    }

    deinit { apus_close(descriptor) }

    func run(_ packet: [UInt8]) -> Outcome? { KernelTwin.run(descriptor, packet) }
}
