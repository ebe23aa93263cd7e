import ArgumentParser
import EBPF
import Foundation

/// What needs no daemon: programs from files, run or explained here.
struct Prog: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run and explain programs without a daemon.", subcommands: [ProgRun.self, ProgExec.self, ProgExplain.self])
}

enum EngineName: String, ExpressibleByArgument, CaseIterable {
    case interpreter, jit

    func require() throws {
        if self == .jit { throw Failure("There is no compiler yet: use --engine interpreter.") }
    }
}

struct ProgExec: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exec", abstract: "Run bare instructions, hexadecimal on standard input, and print r0 in hexadecimal.",
        discussion: "r1 and r2 are address and size of the memory, or 0. Nothing is verified; every access is checked.")

    @Option(help: ArgumentHelp("Memory the program is given, in hexadecimal.", valueName: "hex"))
    var memory: String?

    @Option(help: "interpreter or jit.")
    var engine = EngineName.interpreter

    func run() throws {
        try engine.require()
        guard var bytes = MapContents.bytes(memory ?? "") else { throw Failure("--memory is not hexadecimal: '\(memory ?? "")'.") }
        let input = String(decoding: FileHandle.standardInput.readDataToEndOfFile(), as: UTF8.self)
        guard let program = MapContents.bytes(input) else { throw Failure("Standard input is not hexadecimal.") }
        do throws(LoadError) {
            print(String(try RawProgram.run(program, memory: &bytes), radix: 16))
        } catch {
            throw Failure("\(error)")
        }
    }
}
