import ArgumentParser

/// How fast the parts are, on this machine, now. Ratios of interleaved runs: absolute figures drift with the machine.
struct ApusBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus-bench", abstract: "Measures Apus's parts.", subcommands: [Loop.self], defaultSubcommand: Loop.self)
}
