import Foundation
import Testing

@testable import EBPF

/// The loader process: the same answers as in this process, and nothing an object does to it reaches us.
@Suite(.timeLimit(.minutes(30))) struct LoaderTests {
    // SwiftPM puts the test program and the products side by side.
    static let executable = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: "apus-loader").path

    @Test(arguments: ProgramTests.names) func givesTheSameProgram(_ name: String) throws {
        let loader = try LoaderProcess(executable: LoaderTests.executable)
        let path = try Objects.program(name)
        let here = try ProgramLoader.load(object: path, program: nil, verify: .kernel)
        for verify in [Verification.kernel, .sandbox] {
            let there = try loader.load(object: path, program: nil, verify: verify)
            #expect(there.name == here.name && there.section == here.section && there.instructions == here.instructions)
            #expect(there.maps.map(\.definition) == here.maps.map(\.definition) && there.isSandboxed == (verify == .sandbox))
            #expect((0..<here.instructions).allSatisfy { there.source(of: $0) == here.source(of: $0) })
            var traffic = Traffic(seed: 5)
            for _ in 0..<300 {
                let packet = traffic.next().packet
                try #require((unsafe Bench().run(there, packet)).outcome == (unsafe Bench().run(here, packet)).outcome)
            }
            for map in here.maps { for (key, _) in map.contents where !map.definition.isDataSection && map.definition.type == 1 { try? map.delete(key) } }
            if verify == .kernel { continue }
        }
    }

    @Test func refusesInTheSameWords() throws {
        let loader = try LoaderProcess(executable: LoaderTests.executable)
        for test in ObjectErrorTests.unsupported {
            let path = try Objects.source(test.source)
            let here = #expect(throws: LoadError.self) { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }
            let there = #expect(throws: LoadError.self) { try loader.load(object: path, program: nil, verify: .kernel) }
            #expect(here == there && there != nil)
        }
        let missing = #expect(throws: LoadError.self) { try loader.load(object: "/nonexistent.o", program: nil, verify: .kernel) }
        #expect(missing?.kind == .unreadable)
    }

    /// The process that serves dies: one message, for good. Nobody waits.
    @Test func aLoaderThatIsGone() throws {
        let missing = #expect(throws: LoadError.self) { try LoaderProcess(executable: "/nonexistent/apus-loader") }
        #expect(missing?.message.contains("cannot be started") == true)
        let loader = try LoaderProcess(executable: "/bin/true")
        let gone = #expect(throws: LoadError.self) { try loader.load(object: "/x.o", program: nil, verify: .kernel) }
        #expect(gone?.message == "the loader process is gone")
    }

    /// Mutated objects, spread over headers, sections, relocations, types and instructions: a program, or one message
    /// of one object. No crash reaches this process, and nothing stays behind in the kernel.
    @Test func mutatedObjects() throws {
        let loader = try LoaderProcess(executable: LoaderTests.executable)
        let count = Int(ProcessInfo.processInfo.environment["APUS_MUTATED_OBJECTS"] ?? "") ?? 400
        var random = SplitMix(2024)
        var accepted = 0, malformed = 0, crashed = 0, other = 0
        let objects = try ProgramTests.names.map { try Objects.bytes(try Objects.program($0)) }
        for number in 0..<count {
            let original = objects[number % objects.count]
            var bytes = original
            let parsed = try ELFFile(original)
            // A place in one of: ELF header, section headers, or a section's own bytes, each as likely.
            let table = Int(Asm.word(Array(original[40..<48]), 0))
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let kind = Int.random(in: 0..<9, using: &random)
                let range: Range<Int>
                switch kind {
                case 0: range = 0..<64
                case 1: range = table..<bytes.count
                default:
                    let index = Int.random(in: 1..<parsed.sections.count, using: &random)
                    let at = Int(Asm.word(Array(original[(table + index * 64 + 24)..<(table + index * 64 + 32)]), 0))
                    let size = parsed.sections[index].data.count
                    guard size > 0, at + size <= bytes.count else { continue }
                    range = at..<(at + size)
                }
                let at = Int.random(in: range, using: &random)
                bytes[at] = [bytes[at] ^ (1 << UInt8.random(in: 0..<8, using: &random)), 0, 0xff, UInt8.random(in: 0...255, using: &random)].randomElement(using: &random)!
            }
            let path = try Objects.write(bytes)
            defer { try? FileManager.default.removeItem(atPath: path) }
            do throws(LoadError) {
                _ = try loader.load(object: path, program: nil, verify: .kernel)
                accepted += 1
            } catch {
                try #require(!error.message.isEmpty && error.object == path)
                if error.kind == .malformed { malformed += 1 } else if error.message.contains("crashed the loader") { crashed += 1 } else { other += 1 }
                try #require(error.kind != .unavailable, "\(error)")
            }
        }
        print("mutated objects: \(count), accepted \(accepted), malformed \(malformed), refused otherwise \(other), of which crashes of libbpf \(crashed)")
        #expect(accepted > count / 20 && malformed + other + crashed > count / 5)
        // At least half of them got past the ELF parser.
        #expect(accepted + other + crashed > count / 4)
    }
}
