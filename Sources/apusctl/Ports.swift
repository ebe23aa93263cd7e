import ArgumentParser
import Control
import Foundation

/// A command that asks once and shows a document.
struct Ports: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show what the ports are.")

    @OptionGroup var daemon: DaemonOptions
    @Flag(help: "Print the daemon's own line of JSON.") var json = false

    func run() throws {
        let reply = try daemon.ask("ports")
        print(json ? String(decoding: reply, as: UTF8.self) : try decoded(reply, as: PortsDocument.self).table, terminator: json ? "\n" : "")
    }
}

struct Bridge: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show the addresses that bridges have learned.")

    @OptionGroup var daemon: DaemonOptions
    @Flag(help: "Print the daemon's own line of JSON.") var json = false

    func run() throws {
        let reply = try daemon.ask("bridge")
        print(json ? String(decoding: reply, as: UTF8.self) : try decoded(reply, as: BridgeDocument.self).table, terminator: json ? "\n" : "")
    }
}

struct Port: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Change a port while it runs.", subcommands: [Set.self])

    struct Set: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change a port's settings.",
            discussion: "deliver=full sends finished packets of at most the MTU, whatever the peer negotiated; deliver=offload as far as it took.")

        @OptionGroup var daemon: DaemonOptions
        @Argument(help: "The port.") var name: String
        @Argument(help: "KEY=VALUE, such as deliver=full.") var settings: [String]

        func run() throws { _ = try daemon.ask((["port", "set", name] + settings).joined(separator: " ")) }
    }
}

extension DaemonOptions {
    /// One line, one reply that is no refusal.
    func ask(_ line: String) throws -> Data {
        do {
            var client = try ControlClient(path: socketPath())
            let reply = try client.request(line)
            if let refusal = try? JSONDecoder().decode([String: String].self, from: reply)["error"] {
                throw Failure("The daemon refused: \(refusal).")
            }
            return reply
        } catch let error as SocketError {
            throw Failure(error.description)
        }
    }
}

func decoded<Document: Decodable>(_ reply: Data, as type: Document.Type) throws -> Document {
    if let document = try? JSONDecoder().decode(type, from: reply) { return document }
    throw Failure("The reply cannot be read: is this apusctl of the daemon's version?")
}
