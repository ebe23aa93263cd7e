import Foundation
import Testing

@testable import Compiler
@testable import EBPF

/// Compiled code as memory: who may write and execute it, when it comes, when it goes, and for which machine.
@Suite(.serialized, .timeLimit(.minutes(30))) struct CompilerTests {
    /// Read to the end: the kernel says it has no size.
    private static func mappings() throws -> [Substring] {
        let text = String(decoding: try #require(FileHandle(forReadingAtPath: "/proc/self/maps")).readDataToEndOfFile(), as: UTF8.self)
        return text.split(separator: "\n")
    }

    /// Permissions of the mapping an address lies in, as /proc/self/maps has them; nil: none.
    private static func permissions(_ address: UInt64) throws -> String? {
        for line in try mappings() {
            let words = line.split(separator: " "), ends = words[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
            if ends.count == 2, ends[0] <= address, address < ends[1] { return String(words[1]) }
        }
        return nil
    }

    private static func load() throws -> LoadedProgram { try ProgramLoader.load(object: try Objects.program("count"), program: nil, verify: .kernel) }

    @Test func pagesAreNeverWritableAndExecutable() throws {
        let compiler = try Compiler(), program = try CompilerTests.load()
        let code = try compiler.compile(program)
        let permissions = try CompilerTests.permissions(code.entry)
        #expect(permissions == "r-xp")
        #expect(try !CompilerTests.mappings().contains { $0.split(separator: " ")[1].hasPrefix("rwx") })
        // More code leaves what is there as it is.
        let other = try compiler.compile(try CompilerTests.load())
        #expect(try CompilerTests.permissions(code.entry) == "r-xp" && CompilerTests.permissions(other.entry) == "r-xp")
        #expect(code.bytes > 100)
        withExtendedLifetime((code, other)) {}
    }

    @Test func codeIsReleased() throws {
        let compiler = try Compiler(), program = try CompilerTests.load()
        var code: CompiledCode? = try compiler.compile(program)
        let entry = try #require(code?.entry)
        #expect(program.isCompiled)
        code?.retire()
        #expect(!program.isCompiled)
        code = nil
        #expect(try CompilerTests.permissions(entry)?.contains("x") != true)
        // A hundred programs later there are not a hundred times as many pages.
        func executable() throws -> Int {
            try CompilerTests.mappings().filter { $0.contains("r-xp 00000000 00:00 0") }.count
        }
        let before = try executable()
        for _ in 0..<20 {
            let code = try compiler.compile(program)
            code.retire()
        }
        #expect(try executable() <= before + 1)
    }

    /// Interpreted until there is code, then compiled, then interpreted again: one count of packets.
    @Test func enginesAreSwapped() throws {
        let program = try CompilerTests.load(), frame = Frame().bytes
        func run() { #expect((Bench().run(program, frame, engine: .compiled)).effect.verdict == .pass) }
        #expect(!program.isCompiled)
        run()
        let code = try Compiler().compile(program)
        #expect(program.isCompiled)
        run()
        code.retire()
        run()
        #expect(try program.map(named: "protocols")?.lookup([6, 0, 0, 0]) == Asm.words([3, 3 * UInt64(frame.count)]))
        withExtendedLifetime(code) {}
    }

    @Test func burstsEqualSingleRuns() throws {
        let path = try Objects.program("nat")
        let twins = try Twins { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }
        var traffic = Traffic(seed: 77)
        for _ in 0..<4 { try twins.compareBurst((0..<64).map { _ in traffic.next() }) }
        try twins.compareMaps()
    }

    /// LLVM has the other back end wherever it runs: every program becomes an object file for it.
    @Test(arguments: ["x86_64", "aarch64"]) func objectsFor(_ architecture: String) throws {
        let target = try Target(architecture)
        let machine: UInt16 = architecture == "aarch64" ? 183 : 62
        let fixtures = try FileManager.default.contentsOfDirectory(atPath: Objects.fixtures.path + "/analysis").filter { $0.hasSuffix(".bpf.c") }
        let paths = try fixtures.map { try Objects.fixture(String($0.dropLast(6))) } + ProgramTests.names.map { try Objects.program($0) }
        var compiled = 0
        for path in paths {
            for explained in try Explanation.of(object: path, program: nil) {
                let program = try ProgramLoader.load(object: path, program: explained.program, verify: .sandbox)
                let object = try target.object(program.compilation, name: program.name, isTailTarget: true)
                let bytes = object.bytes
                #expect(Array(bytes.prefix(4)) == [0x7f, 0x45, 0x4c, 0x46] && UInt16(bytes[18]) | UInt16(bytes[19]) << 8 == machine)
                #expect(object.functions().contains { $0.name == program.name && $0.bytes > 0 })
                compiled += 1
            }
        }
        #expect(compiled >= 32)
    }
}
