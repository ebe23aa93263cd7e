import ArgumentParser
import Compiler
import EBPF
import Foundation

/// What needs no daemon: programs from files, run or explained here.
struct Prog: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run and explain programs without a daemon.", subcommands: [ProgRun.self, ProgExec.self, ProgExplain.self])
}

enum EngineName: String, ExpressibleByArgument, CaseIterable {
    case interpreter, jit

    /// Compiles the program where that is asked for. The code lives as long as what comes back.
    func prepare(_ program: LoadedProgram, profile: CycleProfile? = nil) throws -> CompiledCode? {
        guard self == .jit else { return nil }
        do throws(CompilerError) {
            let compiler = try Compiler()
            return if let profile { try compiler.compile(program, profile: profile) } else { try compiler.compile(program) }
        } catch {
            throw Failure("\(error)")
        }
    }
}

struct ProgExec: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exec", abstract: "Run bare instructions, hexadecimal on standard input, and print r0 in hexadecimal.",
        discussion: "r1 and r2 are address and size of the memory, or 0. Nothing is verified; every access is checked.")

    @Option(help: ArgumentHelp("Memory the program is given, in hexadecimal.", valueName: "hex"))
    var memory: String?

    @Option(help: "interpreter or jit.")
    var engine = EngineName.jit

    func run() throws {
        guard var bytes = MapContents.bytes(memory ?? "") else { throw Failure("--memory is not hexadecimal: '\(memory ?? "")'.") }
        let input = String(decoding: FileHandle.standardInput.readDataToEndOfFile(), as: UTF8.self)
        guard let program = MapContents.bytes(input) else { throw Failure("Standard input is not hexadecimal.") }
        var code: CompiledCode?
        do {
            let answer = try RawProgram.run(program, memory: &bytes) { code = try engine.prepare($0) }
            withExtendedLifetime(code) { print(String(answer, radix: 16)) }
        } catch let error as LoadError {
            throw Failure("\(error)")
        }
    }
}
