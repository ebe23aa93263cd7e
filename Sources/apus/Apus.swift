import ArgumentParser
import Control
import Daemon
import Glibc
import Logging

/// `apus FILE`: the daemon, in the foreground.
struct Apus: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus", abstract: "A host packet forwarder that keeps checksum and segmentation offload alive.",
        discussion: "Ends with status 0 after SIGTERM or SIGINT, 1 where something fails, 2 where the configuration or the command line is wrong.")

    @Argument(help: "The configuration file (INI).") var file: String
    @Flag(help: "Check the configuration and start nothing.") var check = false

    mutating func run() throws {
        // Before EAL pins this thread.
        let cpus = availableCPUs()
        let configuration: Configuration
        do {
            configuration = try Configuration.load(path: file, availableCPUs: cpus)
        } catch {
            complain("\(error)")
            throw ExitCode(2)
        }
        if check { return print("\(file): good") }
        LoggingSystem.bootstrap(StreamLogHandler.standardError)
        // Blocked here, so that every thread inherits it and only the wait below takes them.
        var signals = sigset_t()
        unsafe sigemptyset(&signals)
        for signal in [SIGTERM, SIGINT] { unsafe sigaddset(&signals, signal) }
        unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
        signal(SIGPIPE, SIG_IGN)
        try forward(configuration, cpus, until: &signals)
    }

    private func forward(_ configuration: Configuration, _ cpus: Set<Int>, until signals: inout sigset_t) throws {
        let missing: Int
        do {
            missing = try Service.run(configuration, availableCPUs: cpus, logger: Logger(label: configuration.daemon.name)) {
                var received: Int32 = 0
                unsafe sigwait(&signals, &received)
            }
        } catch {
            complain("apus: \(error)")
            throw ExitCode(1)
        }
        if missing != 0 { throw ExitCode(1) }
    }
}

/// Not `stderr`: Swift 6 takes the C library's variable for shared mutable state.
func complain(_ message: String) {
    let line = message + "\n"
    unsafe _ = write(STDERR_FILENO, line, line.utf8.count)
}
