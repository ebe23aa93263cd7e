import ArgumentParser
import Control
import Foundation

struct Stats: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show the daemon's counters.")

    @OptionGroup var daemon: DaemonOptions

    @Flag(help: "Print the daemon's own line of JSON.")
    var json = false

    @Flag(help: "Repeat every SECONDS: rates, or with --json a line each time.")
    var watch = false

    @Argument(help: "Seconds between repetitions (with --watch).")
    var seconds: Double?

    static let secondsAllowed = 0.1...86400

    func validate() throws {
        guard let seconds else { return }
        guard watch else { throw ValidationError("SECONDS goes with --watch.") }
        guard Self.secondsAllowed.contains(seconds) else { throw ValidationError("SECONDS is a number from 0.1 to 86400.") }
    }

    func run() throws {
        do {
            var client = try ControlClient(path: daemon.socketPath())
            var (reply, time) = (try client.request("stats"), ContinuousClock.now)
            try show(json ? reply : Data(StatsTable.totals(decode(reply)).utf8))
            while watch {
                Thread.sleep(forTimeInterval: seconds ?? 1)
                let (next, nextTime) = (try client.request("stats"), ContinuousClock.now)
                let elapsed = (nextTime - time) / .seconds(1)
                let rates = try StatsTable.rates(from: decode(reply), to: decode(next), elapsedSeconds: elapsed)
                try show(json ? next : Data("\n\(rates)".utf8))
                (reply, time) = (next, nextTime)
            }
        } catch let error as SocketError {
            throw Failure(error.description)
        }
    }

    private func decode(_ reply: Data) throws -> StatsDocument {
        if let document = try? JSONDecoder().decode(StatsDocument.self, from: reply) { return document }
        if let refusal = try? JSONDecoder().decode([String: String].self, from: reply)["error"] {
            throw Failure("The daemon refused: \(refusal).")
        }
        throw Failure("The reply is no stats document: is this apusctl of the daemon's version?")
    }

    /// Whole lines, at once: whoever reads through a pipe sees each repetition when it happens.
    private func show(_ text: Data) throws {
        var text = text
        if text.last != UInt8(ascii: "\n") { text.append(UInt8(ascii: "\n")) }
        try FileHandle.standardOutput.write(contentsOf: text)
    }
}
