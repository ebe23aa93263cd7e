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
                let packet = traffic.next()
                try #require((unsafe Bench().run(there, packet)).outcome == (unsafe Bench().run(here, packet)).outcome)
            }
            for map in here.maps { for (key, _) in map.contents where !map.definition.isDataSection && map.definition.type == 1 { try? map.delete(key) } }
            if verify == .kernel { continue }
        }
    }

    /// An object that another process opened is only a name here: its program array is known all the same, or tail calls
    /// would find no compiled code.
    @Test func tailCallsAreForeseen() throws {
        let loader = try LoaderProcess(executable: LoaderTests.executable)
        #expect(try loader.load(object: try Objects.program("router_split"), program: "router_1", verify: .sandbox).mayBeTailCalled)
        #expect(try !loader.load(object: try Objects.program("count"), program: nil, verify: .sandbox).mayBeTailCalled)
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
}
