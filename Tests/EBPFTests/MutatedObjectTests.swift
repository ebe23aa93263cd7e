import Foundation
import Testing

@testable import EBPF

/// Objects with a few bytes changed, a fifth each in headers, sections, relocations, types and instructions: a program,
/// or one message of one object. No crash reaches this process; nothing stays behind, here or in the kernel.
@Suite(.timeLimit(.minutes(FuzzTests.number("APUS_MUTATED_OBJECTS", 0) > 0 ? 600 : 60))) struct MutatedObjectTests {
    enum Part: String, CaseIterable { case headers, sections, relocations, types, instructions }

    /// Where an object's parts lie in the file.
    struct Original {
        let bytes: [UInt8]
        private(set) var ranges: [Part: [Range<Int>]] = [:]

        init(_ bytes: [UInt8]) throws {
            self.bytes = bytes
            let table = Int(Asm.word(Array(bytes[40..<48]), 0))
            ranges[.headers] = [0..<64, table..<bytes.count]
            for (index, section) in try ELFFile(bytes).sections.enumerated() where index > 0 {
                let at = Int(Asm.word(Array(bytes[(table + index * 64 + 24)..<(table + index * 64 + 32)]), 0))
                guard section.data.count > 0, at + section.data.count <= bytes.count else { continue }
                // Debuggers' sections are nobody's here.
                if section.name.hasPrefix(".debug") || section.name.hasPrefix(".rel.debug") { continue }
                ranges[part(section.name), default: []].append(at..<(at + section.data.count))
            }
        }

        private func part(_ name: String) -> Part {
            if name.hasPrefix(".rel") { return .relocations }
            if name.hasPrefix(".BTF") { return .types }
            return name == ".text" || name.hasPrefix("xdp") ? .instructions : .sections
        }

        /// One to three places of the part, each changed by a bit, a byte or a whole field.
        func mutated(_ part: Part, _ random: inout SplitMix) -> [UInt8] {
            var bytes = bytes
            guard let ranges = ranges[part], !ranges.isEmpty else { return bytes }
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let range = ranges.randomElement(using: &random)!
                let at = Int.random(in: range, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                case 1: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 2:
                    let field = at & ~3, value: UInt32 = [0, 1, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000, UInt32(range.count)].randomElement(using: &random)!
                    for byte in 0..<4 where range.contains(field + byte) { bytes[field + byte] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(byte))) }
                default: bytes[at] = bytes[Int.random(in: range, using: &random)]
                }
            }
            return bytes
        }
    }

    private static let fixtures = ["spill_key", "subprograms", "map_value", "nat_loop"]

    private func residentKilobytes(_ process: pid_t) throws -> Int {
        let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
        let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") })
        return try #require(Int(line.split(whereSeparator: \.isWhitespace)[1]))
    }

    private func descriptors(_ process: pid_t) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count
    }

    /// What one object came to.
    private enum End { case accepted, refused, crashed }

    private func load(_ bytes: [UInt8], _ loader: LoaderProcess) throws -> End {
        let path = try Objects.write(bytes)
        defer { try? FileManager.default.removeItem(atPath: path) }
        do throws(LoadError) {
            _ = try loader.load(object: path, program: nil, verify: .kernel)
            return .accepted
        } catch {
            try #require(error.kind != .unavailable && error.object == path, "\(error)")
            // One sentence; behind the kernel's and libbpf's refusals their last lines.
            let lines = error.description.split(separator: "\n", omittingEmptySubsequences: false)
            try #require(!error.message.isEmpty && lines[0].hasPrefix(path), "\(error)")
            try #require(lines.count == 1 || error.kind == .refused && lines.count <= 9 && lines.dropFirst().allSatisfy { $0.hasPrefix("    ") }, "\(error)")
            return error.message.contains("the loader") ? .crashed : .refused
        }
    }

    @Test func eachHasOneMessage() throws {
        let count = FuzzTests.number("APUS_MUTATED_OBJECTS", 10_000)
        let originals = try (ProgramTests.names.map { try Objects.program($0) } + MutatedObjectTests.fixtures.map { try Objects.fixture($0) })
            .map { try Original(Objects.bytes($0)) }
        for part in Part.allCases { #expect(originals.allSatisfy { $0.ranges[part] != nil || part == .relocations }, "\(part)") }
        let pinned = KernelObjects.pinned(), kernel = KernelObjects.all()
        let loader = try LoaderProcess(executable: LoaderTests.executable)
        var random = SplitMix(UInt64(FuzzTests.number("APUS_FUZZ_SEED", 2024)))
        var ends: [Part: [End: Int]] = [:], parsed = 0
        var before = (descriptors: 0, kilobytes: 0)
        for number in 0..<count {
            let part = Part.allCases[number % Part.allCases.count]
            let bytes = originals[number / Part.allCases.count % originals.count].mutated(part, &random)
            if (try? ELFFile(bytes)) != nil { parsed += 1 }
            let end = try load(bytes, loader)
            ends[part, default: [:]][end, default: 0] += 1
            // Whatever is allocated once has been by now.
            if number == min(200, count / 2) { before = (try descriptors(loader.identifier), try residentKilobytes(loader.identifier)) }
        }
        for part in Part.allCases { print("mutated \(part): \(ends[part, default: [:]].map { "\($0.value) \($0.key)" }.sorted().joined(separator: ", "))") }
        print("mutated objects: \(count), \(parsed) got past the ELF parser")
        #expect(parsed * 2 >= count)
        for part in Part.allCases {
            let of = ends[part, default: [:]]
            #expect(of[.refused, default: 0] + of[.crashed, default: 0] >= count / 200, "\(part): \(of)")
        }
        #expect(try descriptors(loader.identifier) == before.descriptors)
        let kilobytes = try residentKilobytes(loader.identifier)
        #expect(kilobytes < before.kilobytes + 8192, "the loader grew from \(before.kilobytes) to \(kilobytes) KiB")
        // It still serves.
        #expect(try load(originals[0].bytes, loader) == .accepted)
        #expect(KernelObjects.pinned() == pinned)
        let orphans = KernelObjects.orphans(since: kernel)
        #expect(orphans.isEmpty, "\(orphans)")
    }
}
