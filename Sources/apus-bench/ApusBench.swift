import ArgumentParser

/// How fast the parts are, on this machine, now. Ratios of interleaved runs: absolute figures drift with the machine.
struct ApusBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus-bench", abstract: "Measures Apus's parts.", subcommands: [Loop.self, Engine.self, Start.self, SumsCommand.self, PathsCommand.self],
        defaultSubcommand: Loop.self)
}

struct SumsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sums", abstract: "Times the summing kernels against memcpy and the compiler's own loop.")

    func run() { Sums().run() }
}

struct PathsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "paths", abstract: "Cycles of the polling loop a packet, by what its checksum needs.")

    func run() { Paths().run() }
}
