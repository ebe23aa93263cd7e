import CBPF
import Testing

@testable import EBPF

/// The walk that says why a foreign program has one verdict only.
@Suite struct VerdictBoundTests {
    private static func pass(_ verdict: Int32) -> [Instruction] { [Asm.mov(0, imm: verdict), Asm.exit] }
    /// if (data + size > data_end) return 1; return 2;
    private static func longerThan(_ size: Int32) -> [Instruction] {
        [Asm.load(Asm.word, 2, 1, 0), Asm.load(Asm.word, 3, 1, 4), Asm.alu(0x07, 2, imm: size), Asm.mov(0, imm: 1), Asm.alu(0x2d, 2, 3, offset: 1),
         Asm.mov(0, imm: 2), Asm.exit]
    }
    /// What a device number decides: 1 where it is less than `limit`, 2 otherwise.
    private static func device(_ limit: Int32) -> [Instruction] {
        [Asm.load(Asm.word, 2, 1, 12), Asm.mov(0, imm: 1), Asm.alu(0xa5, 2, offset: 1, imm: limit), Asm.mov(0, imm: 2), Asm.exit]
    }
    private static func redirect(flags: Int32) -> [Instruction] { [Asm.mov(1, imm: 7), Asm.mov(2, imm: flags), Asm.call(23), Asm.exit] }
    private static func redirectMap(_ map: Int32, flags: Int32) -> [Instruction] {
        [Asm.alu(0x18, 1, 1, imm: map), Asm.alu(0, 0), Asm.mov(2, imm: 0), Asm.mov(3, imm: flags), Asm.call(51), Asm.exit]
    }

    private struct Row {
        let what: String, code: [Instruction]
        /// Nil: anything. `given`: with the facts of the kernel's test run.
        let alone: Set<UInt32>?, given: Set<UInt32>?
        var facts: Set<VerdictBound.Fact> = []
        /// Path by path; nil: the same as `given`.
        var byPaths: Set<UInt32>?
    }

    private static let rows: [Row] = [
        Row(what: "one constant", code: pass(2), alone: [2], given: [2]),
        Row(what: "a negative constant", code: pass(-1), alone: [0xffff_ffff], given: [0xffff_ffff]),
        Row(what: "two ways out", code: longerThan(15), alone: [1, 2], given: [1, 2]),
        Row(what: "a length every packet has", code: longerThan(14), alone: [1, 2], given: [2], facts: [.length]),
        Row(what: "a device", code: device(1), alone: [1, 2], given: [2], facts: [.device]),
        Row(what: "two devices", code: device(2), alone: [1, 2], given: [1, 2]),
        Row(what: "a packet's byte", code: [Asm.load(Asm.word, 2, 1, 0), Asm.load(Asm.byte, 0, 2, 0), Asm.exit], alone: nil, given: nil),
        Row(what: "a masked byte", code: [Asm.load(Asm.word, 2, 1, 0), Asm.load(Asm.byte, 0, 2, 0), Asm.alu(0x57, 0, imm: 3), Asm.exit], alone: [0, 1, 2, 3], given: [0, 1, 2, 3]),
        Row(what: "a helper's answer", code: [Asm.call(7), Asm.exit], alone: nil, given: nil),
        Row(what: "a helper's answer, compared", code: [Asm.call(7), Asm.alu(0x15, 0, offset: 1, imm: 3), Asm.mov(0, imm: 1), Asm.exit], alone: [1, 3], given: [1, 3]),
        Row(what: "a redirect", code: redirect(flags: 0), alone: nil, given: [4], facts: [.redirect]),
        Row(what: "a redirect with flags", code: redirect(flags: 2), alone: [0, 4], given: [0, 4]),
        Row(what: "a redirect by a map", code: redirectMap(0, flags: 2), alone: [0, 2, 4], given: [0, 2, 4]),
        Row(what: "a broadcast", code: redirectMap(0, flags: 8), alone: [0, 4], given: [4], facts: [.broadcast]),
        Row(what: "a tail call", code: [Asm.alu(0x18, 2, 1), Asm.alu(0, 0), Asm.mov(3, imm: 0), Asm.call(12), Asm.mov(0, imm: 2), Asm.exit], alone: nil, given: nil),
        Row(what: "a function's answer", code: [Asm.callLocal(1), Asm.exit, Asm.mov(0, imm: 3), Asm.exit], alone: [3], given: [3]),
        Row(what: "a function's argument", code: [Asm.mov(1, imm: 4), Asm.callLocal(1), Asm.exit, Asm.mov(0, 1), Asm.exit], alone: [4], given: [4]),
        Row(what: "kept on the stack", code: [Asm.mov(6, imm: 2), Asm.store(Asm.double, 10, -8, 6), Asm.call(7), Asm.load(Asm.double, 0, 10, -8), Asm.exit], alone: [2], given: [2]),
        Row(what: "overwritten on the stack", code: [Asm.mov(6, imm: 2), Asm.store(Asm.double, 10, -8, 6), Asm.store(Asm.byte, 10, -7, imm: 1), Asm.load(Asm.double, 0, 10, -8), Asm.exit], alone: nil, given: nil),
        Row(what: "overwritten through another register", code: [Asm.mov(6, imm: 2), Asm.store(Asm.double, 10, -8, 6), Asm.mov(3, 10), Asm.alu(0x07, 3, imm: -16), Asm.store(Asm.double, 3, 8, imm: 1), Asm.load(Asm.double, 0, 10, -8), Asm.exit], alone: [1], given: [1]),
        Row(what: "handed to a function", code: [Asm.mov(6, imm: 2), Asm.store(Asm.double, 10, -8, 6), Asm.mov(1, 10), Asm.alu(0x07, 1, imm: -8), Asm.callLocal(2), Asm.load(Asm.double, 0, 10, -8), Asm.exit, Asm.store(Asm.double, 1, 0, imm: 1), Asm.mov(0, imm: 0), Asm.exit], alone: nil, given: nil),
        Row(what: "handed to a helper", code: [Asm.mov(6, imm: 2), Asm.store(Asm.double, 10, -8, 6), Asm.mov(1, 10), Asm.alu(0x07, 1, imm: -16), Asm.mov(2, imm: 16), Asm.call(6), Asm.load(Asm.double, 0, 10, -8), Asm.exit], alone: nil, given: nil),
        Row(what: "a loop", code: [Asm.mov(0, imm: 0), Asm.alu(0x07, 0, imm: 1), Asm.alu(0xa5, 0, offset: -2, imm: 40), Asm.exit], alone: nil, given: nil, byPaths: [40]),
        Row(what: "a sum by a loop", code: [Asm.mov(0, imm: 0), Asm.mov(1, imm: 10), Asm.alu(0x0f, 0, 1), Asm.alu(0x07, 1, imm: -1), Asm.alu(0x55, 1, offset: -3), Asm.exit], alone: nil, given: nil, byPaths: [55]),
        Row(what: "a path that reads what nobody wrote", code: [Asm.call(7), Asm.alu(0x15, 0, offset: 2), Asm.load(Asm.double, 0, 9, 0), Asm.exit, Asm.mov(0, imm: 3), Asm.exit], alone: nil, given: [3], facts: [.written]),
        Row(what: "dead code", code: [Asm.mov(0, imm: 2), Asm.alu(0x15, 0, offset: 1, imm: 2), Asm.mov(0, imm: 1), Asm.exit], alone: [2], given: [2]),
    ]

    @Test func boundsAreRight() {
        for row in VerdictBoundTests.rows {
            #expect(VerdictBound(row.code, believesFacts: false).verdicts == row.alone, "\(row.what), the instructions alone")
            let given = VerdictBound(row.code)
            #expect(given.verdicts == row.given, "\(row.what), with the facts of a test run")
            #expect(given.facts == row.facts, "\(row.what)")
            #expect(VerdictBound(row.code, followsPaths: true).verdicts == row.byPaths ?? row.given, "\(row.what), path by path")
        }
        #expect(Set(VerdictBoundTests.rows.flatMap(\.facts)) == Set(VerdictBound.Fact.allCases))
    }

    /// Each fact, asked of the running kernel.
    @Test(arguments: VerdictBound.Fact.allCases) func factsHoldInTheKernel(_ fact: VerdictBound.Fact) throws {
        let packet = [UInt8](repeating: 0, count: 14)
        switch fact {
        case .length:
            let code = try KernelCode(VerdictBoundTests.pass(2))
            #expect(code.run(packet)?.verdict == 2)
            #expect(code.run(Array(packet.dropLast())) == nil)
            // And no helper makes it shorter: they answer -EINVAL.
            for (helper, by) in [(Int32(65), Int32(-1)), (44, 1)] {
                let shorter = try KernelCode([Asm.mov(2, imm: by), Asm.call(helper), Asm.exit])
                #expect(shorter.run(packet)?.verdict == UInt32(bitPattern: -22))
                #expect(shorter.run(packet + [0])?.verdict == 0)
            }
        case .device:
            let code = try KernelCode([Asm.load(Asm.word, 0, 1, 12), Asm.exit])
            #expect(code.run(packet)?.verdict == 1)
            #expect(KernelTwin.run(code.descriptor, packet, [], 0)?.verdict == 1)
        case .written:
            // Also in a register that a call has spoilt.
            for code in [[Asm.load(Asm.double, 0, 9, 0), Asm.exit], [Asm.mov(3, 10), Asm.call(7), Asm.load(Asm.double, 0, 3, -8), Asm.exit]] {
                let refused = #expect(throws: KernelCode.Refused.self) { try KernelCode(code) }
                #expect(refused?.description.contains("!read_ok") == true)
            }
        case .redirect:
            #expect(try KernelCode(VerdictBoundTests.redirect(flags: 0)).run(packet)?.verdict == 4)
            #expect(try KernelCode(VerdictBoundTests.redirect(flags: 2)).run(packet)?.verdict == 0)
        case .broadcast:
            for type in [MapType.deviceArray, MapType.deviceHash] {
                let map = apus_map_create(type, 4, 4, 4, 0)
                try #require(map >= 0)
                defer { apus_close(map) }
                // There is nothing in the map.
                for flags in [8, 8 | 16] as [Int32] { #expect(try KernelCode(VerdictBoundTests.redirectMap(map, flags: flags)).run(packet)?.verdict == 4) }
                #expect(try KernelCode(VerdictBoundTests.redirectMap(map, flags: 2)).run(packet)?.verdict == 2)
            }
        }
    }
}
