import Testing

@testable import Control

/// SplitMix64: the same bytes in every run, so that a failure can be repeated.
private struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

@Suite struct INIFuzzTests {
    /// Never a trap; every fault names a line that exists and fits on one line of a terminal.
    private func check(_ bytes: [UInt8]) -> Bool {
        do {
            _ = try Configuration.load(bytes: bytes, source: "f", directory: "", availableCPUs: [0, 1])
            return true
        } catch {
            let lineCount = bytes.count { $0 == 0x0A } + 1
            #expect(!error.diagnostics.isEmpty)
            for diagnostic in error.diagnostics {
                #expect((1...lineCount).contains(diagnostic.line))
                let text = diagnostic.description
                #expect(!text.utf8.contains { $0 < 0x20 || $0 == 0x7F } && text.hasPrefix("f:\(diagnostic.line): "))
            }
            return false
        }
    }

    @Test func randomBytes() {
        var generator = SeededGenerator(state: 1)
        for _ in 0..<1000 {
            _ = check((0..<Int.random(in: 0...300, using: &generator)).map { _ in UInt8.random(in: 0...255, using: &generator) })
        }
    }

    @Test func randomLettersOfTheSyntax() {
        let alphabet = Array("[]=;# \t\r\n\n\naportxdwi-123,é\u{301}\u{0}".utf8)
        var generator = SeededGenerator(state: 2)
        for _ in 0..<1000 {
            _ = check((0..<Int.random(in: 0...200, using: &generator)).map { _ in alphabet.randomElement(using: &generator)! })
        }
    }

    @Test func mutationsOfAGoodFile() {
        let good = Array(BadConfiguration.good.joined(separator: "\n").utf8)
        var generator = SeededGenerator(state: 3)
        var goodCount = 0
        let roundCount = 2000
        for _ in 0..<roundCount {
            var bytes = good
            for _ in 0..<Int.random(in: 1...2, using: &generator) { mutate(&bytes, &generator) }
            goodCount += check(bytes) ? 1 : 0
        }
        // Both sides were exercised: a changed name is still a name, a changed key is not.
        #expect((roundCount / 50...roundCount / 2).contains(goodCount))
    }

    private func mutate(_ bytes: inout [UInt8], _ generator: inout SeededGenerator) {
        guard let index = bytes.indices.randomElement(using: &generator) else { return }
        let end = min(index + Int.random(in: 1...20, using: &generator), bytes.count)
        switch Int.random(in: 0..<5, using: &generator) {
        case 0: bytes[index] ^= 1 << UInt8.random(in: 0...7, using: &generator)
        case 1: bytes[index] = UInt8.random(in: 0...255, using: &generator)
        case 2: bytes.removeSubrange(index..<end)
        case 3: bytes.insert(contentsOf: bytes[index..<end], at: bytes.indices.randomElement(using: &generator)!)
        default: bytes.insert("[]=;#\r\n".utf8.randomElement(using: &generator)!, at: index)
        }
    }

    @Test func theLongestFileIsReadInTime() {
        let line = Array("k = v\n".utf8)
        let bytes = Array(repeatElement(line, count: INI.fileBytesMax / line.count).joined())
        let ini = INI(parsing: bytes, source: "f")
        #expect(ini.diagnostics.count == INI.fileBytesMax / line.count)
    }
}
