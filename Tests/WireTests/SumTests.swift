import Testing
@testable import Wire

/// The sum against its slow twin: every alignment, every short length, every split, extremes of content.
struct SumTests {
    static let patterns: [(String, @Sendable (Int) -> UInt8)] = [
        ("zeros", { _ in 0 }),
        ("ones", { _ in 0xff }),
        ("counting", { UInt8(truncatingIfNeeded: $0) }),
        ("mixed", { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) }),
    ]

    private func fast(_ bytes: [UInt8], from: Int, count: Int) -> UInt16 {
        unsafe bytes.withUnsafeBytes { bytes in
            unsafe OnesComplementSum.of(bytes.baseAddress! + from, count: count).folded.bigEndian
        }
    }

    @Test(arguments: patterns.indices)
    func everyAlignmentAndLength(pattern: Int) {
        let bytes = (0..<600).map(Self.patterns[pattern].1)
        for alignment in 0..<16 {
            for count in 0...300 {
                #expect(fast(bytes, from: alignment, count: count) == SlowTwin.sum(bytes[alignment..<alignment + count]))
            }
        }
    }

    @Test(arguments: [1459, 1460, 1461, 9000, 65_493, 65_535])
    func packetLengths(count: Int) {
        for (_, pattern) in Self.patterns {
            let bytes = (0..<count + 3).map(pattern)
            for alignment in 0..<3 {
                #expect(fast(bytes, from: alignment, count: count) == SlowTwin.sum(bytes[alignment..<alignment + count]))
            }
        }
    }

    @Test func everySplit() {
        let bytes = (0..<97).map(Self.patterns[3].1)
        let whole = SlowTwin.sum(bytes)
        for split in 0...bytes.count {
            unsafe bytes.withUnsafeBytes { raw in
                var sum = unsafe OnesComplementSum.of(raw.baseAddress!, count: split)
                let rest = unsafe OnesComplementSum.of(raw.baseAddress! + split, count: bytes.count - split)
                if split.isMultiple(of: 2) { sum = sum + rest } else { sum.addAtOddPosition(rest) }
                #expect(sum.folded.bigEndian == whole, "split at \(split)")
            }
        }
    }

    /// RFC 1624's own example (section 4): HC 0xdd2f, field 0x5555 becomes 0x3285, HC' is 0x0000.
    @Test func differenceOfRFC1624() {
        func number(_ value: UInt16) -> OnesComplementSum { OnesComplementSum(raw: UInt64(value.bigEndian)) }
        let change = number(0x3285) - number(0x5555)
        let field = (number(~0xdd2f) + change).complemented.bigEndian
        #expect(field == 0x0000)
    }

    @Test func differenceAgainstTwin() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let a = UInt16.random(in: 0...0xffff, using: &generator), b = UInt16.random(in: 0...0xffff, using: &generator)
            let difference = OnesComplementSum(raw: UInt64(a)) - OnesComplementSum(raw: UInt64(b))
            #expect(difference.folded == SlowTwin.add(a, ~b))
        }
    }

    @Test func numbersGoInNetworkOrder() {
        var sum = OnesComplementSum()
        sum.add(number: 0x0102)
        sum.add(number: 0xff00)
        #expect(sum.folded.bigEndian == SlowTwin.add(0x0102, 0xff00))
    }

    @Test(arguments: [(0x0000, true), (0xffff, true), (0x0001, false), (0xfffe, false)])
    func bothZerosAreZero(value: Int, isZero: Bool) {
        #expect(OnesComplementSum(raw: UInt64(value)).isZero == isZero)
    }
}
