import Testing

@testable import EBPF

/// The record of written bytes against a set of numbers.
@Suite struct WrittenBytesTests {
    /// What lies from 64 on is one hull.
    private static func expected(_ bytes: Set<Int>) -> Set<Int> {
        let rest = bytes.filter { $0 >= 64 }
        guard let first = rest.min(), let last = rest.max() else { return bytes }
        return bytes.union(first...last)
    }

    private static func numbers(_ written: WrittenBytes) -> Set<Int> {
        Set(written.ranges.flatMap { Array(Int($0.lower)..<Int($0.upper)) })
    }

    @Test func recordsLikeASet() {
        var random = SplitMix(64)
        for round in 0..<4_000 {
            var written = WrittenBytes(), other = WrittenBytes(), bytes: Set<Int> = []
            for _ in 0..<Int.random(in: 0...5, using: &random) {
                let place = Int.random(in: -8...90, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0:
                    // A head grows from the first byte, or from behind it.
                    let lower = Int.random(in: -40..<0, using: &random), upper = Int.random(in: 0...20, using: &random)
                    written.record(lower, upper)
                    bytes.formUnion(lower..<upper)
                case 1:
                    let count = [0, 1, 2, 4, 8, 64, 100].randomElement(using: &random)!, lower = max(0, place)
                    other.record(lower, lower + count)
                    bytes.formUnion(lower..<lower + count)
                default:
                    let bits = UInt64.random(in: 0 ... .max, using: &random) >> UInt64.random(in: 0..<64, using: &random)
                    written.record(bits, at: max(0, place))
                    for bit in 0..<64 where bits & 1 << UInt64(bit) != 0 { bytes.insert(max(0, place) + bit) }
                }
            }
            written.include(other)
            let expected = Self.expected(bytes)
            #expect(Self.numbers(written) == expected, "round \(round): \(written)")
            #expect(written.isEmpty == expected.isEmpty)
            #expect(written.end == max(0, (expected.max() ?? -1) + 1))
            let lower = Int.random(in: 0...100, using: &random), upper = lower + Int.random(in: 0...9, using: &random)
            #expect(written.overlaps(lower, upper) == expected.contains { lower <= $0 && $0 < upper }, "round \(round): \(written) \(lower) \(upper)")
            #expect(written.reaches(from: lower) == expected.contains { $0 >= lower })
            #expect(zip(written.ranges, written.ranges.dropFirst()).allSatisfy { $0.upper < $1.lower })
        }
    }

    /// A store that begins in the metadata and ends in the packet, as only unverified code can: the packet's bytes count.
    @Test(arguments: [Engine.interpreter, .compiled]) func storesAcrossTheStart(_ engine: Engine) throws {
        let code = [Asm.load(Asm.word, 6, 1, 8), Asm.store(Asm.double, 6, 4, imm: -1), Asm.mov(0, imm: 2), Asm.exit]
        let twins = try Twins { try LoadedProgram.bare(code, sandboxed: true) }
        let program = engine == .compiled ? twins.compiled : twins.interpreted
        let run = unsafe Bench(metadata: 8).run(program, [UInt8](repeating: 1, count: 60), engine: engine)
        #expect(run.bytes.prefix(6) == [255, 255, 255, 255, 1, 1] && run.effect.fault == .none)
        #expect((0..<4).allSatisfy(run.effect.written.names) && !run.effect.written.names(4))
    }
}
