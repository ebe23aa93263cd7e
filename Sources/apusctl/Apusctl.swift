import ArgumentParser
import Control
import Foundation

struct Apusctl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apusctl",
        abstract: "Ask a running Apus daemon, or run programs without one.",
        discussion: "Exit status: 0 done, 1 the daemon cannot be asked or refused, 2 the command line is wrong.",
        subcommands: [Stats.self, Ports.self, Bridge.self, Port.self, Capture.self, Map.self, Trace.self, Prog.self])

    @OptionGroup var daemon: DaemonOptions
}

struct DaemonOptions: ParsableArguments {
    static let directory = "/run/apus"

    @Option(name: .shortAndLong, help: "The daemon's stats-socket (default: the only one in /run/apus).")
    var socket: String?

    /// What was given, or the only socket there is.
    func socketPath() throws -> String {
        if let socket { return socket }
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: Self.directory)
        } catch CocoaError.fileReadNoPermission {
            throw Failure("You may not read \(Self.directory): run apusctl as root, or name the socket with -s.")
        } catch {
            throw Failure("There is no \(Self.directory), so no daemon runs here: start apus, or name its stats-socket with -s.")
        }
        let sockets = names.filter { $0.hasSuffix(".sock") }.sorted().map { "\(Self.directory)/\($0)" }
        switch sockets.count {
        case 0: throw Failure("There is no socket in \(Self.directory): start apus, or name its stats-socket with -s.")
        case 1: return sockets[0]
        default: throw Failure("There are \(sockets.count) sockets: choose one with -s (\(sockets.joined(separator: ", "))).")
        }
    }
}

/// Ends the program with status 1 and one sentence.
struct Failure: Error {
    let sentence: String

    init(_ sentence: String) { self.sentence = sentence }
}

func complain(_ text: String) { FileHandle.standardError.write(Data("\(text)\n".utf8)) }
