import ArgumentParser
import Control
import EBPF
import Foundation

/// The maps of a running daemon's programs.
struct Map: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Read and change the maps of running programs.",
        discussion: """
            Keys and values are JSON by the object's types, such as 5 or '{"address":1,"port":80}', or bytes in memory's order, \
            such as 0x05000000. PROGRAM is the name of the [xdp] section.
            """,
        subcommands: [List.self, Dump.self, Lookup.self, Update.self, Delete.self, Records.self])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List all maps.")
        @OptionGroup var daemon: DaemonOptions

        func run() throws { print(String(decoding: try daemon.ask("map list"), as: UTF8.self)) }
    }

    struct Place: ParsableArguments {
        @Argument(help: "The program's section.") var program: String
        @Argument(help: "The map.") var map: String

        var words: String { "\(program) \(map)" }
    }

    struct Dump: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show all entries, one a line.")
        @OptionGroup var daemon: DaemonOptions
        @OptionGroup var place: Place
        @Flag(help: "Print the daemon's own line of JSON.") var json = false

        private struct Reply: Decodable {
            let entries: [BPFMap.Entry]
            let truncated: Bool
        }

        func run() throws {
            let reply = try daemon.ask("map dump \(place.words)")
            if json { return print(String(decoding: reply, as: UTF8.self)) }
            let dump = try decoded(reply, as: Reply.self)
            for entry in dump.entries { print("\(try Map.text(entry.key)) = \(try Map.text(entry.value ?? .null))") }
            if dump.truncated { complain("There are more entries than fit into a reply.") }
        }
    }

    struct Lookup: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the value of a key.")
        @OptionGroup var daemon: DaemonOptions
        @OptionGroup var place: Place
        @Argument(help: "The key.") var key: String

        func run() throws {
            let reply = try daemon.ask("map lookup \(place.words) \(try Map.text(["key": Map.value(key)]))")
            print(try Map.text(try decoded(reply, as: BPFMap.Entry.self).value ?? .null))
        }
    }

    struct Update: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Set an entry, or those of a file.",
            discussion: "--file takes a JSON array of {\"key\":…,\"value\":…}. Where a number is wanted, a port's name stands for its index.")
        @OptionGroup var daemon: DaemonOptions
        @OptionGroup var place: Place
        @Argument(help: "The key.") var key: String?
        @Argument(help: "The value.") var value: String?
        @Option(help: ArgumentHelp("Entries to set.", valueName: "file")) var file: String?
        @Option(help: "any, new or existing.") var mode = "any"

        func validate() throws {
            if file == nil ? value == nil : key != nil { throw ValidationError("Give KEY and VALUE, or --file.") }
        }

        func run() throws {
            var entries: [BPFMap.Entry]
            if let file {
                do {
                    entries = try JSONDecoder().decode([BPFMap.Entry].self, from: Data(contentsOf: URL(filePath: file)))
                } catch {
                    throw Failure("\(file) is no JSON array of {\"key\":…,\"value\":…}.")
                }
            } else {
                entries = [BPFMap.Entry(key: Map.value(key ?? ""), value: Map.value(value ?? ""))]
            }
            // A command line has at most 4096 bytes.
            var batch: [String] = [], size = 0
            let start = "map update \(place.words) {\"mode\":\(try Map.text(JSONValue.string(mode))),\"entries\":["
            func send() throws {
                if !batch.isEmpty { _ = try daemon.ask(start + batch.joined(separator: ",") + "]}") }
                (batch, size) = ([], 0)
            }
            for entry in entries {
                let text = try Map.text(entry)
                if size + text.utf8.count + start.utf8.count > 3900 { try send() }
                batch.append(text)
                size += text.utf8.count + 1
            }
            try send()
        }
    }

    struct Delete: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Delete an entry.")
        @OptionGroup var daemon: DaemonOptions
        @OptionGroup var place: Place
        @Argument(help: "The key.") var key: String

        func run() throws { _ = try daemon.ask("map delete \(place.words) \(try Map.text(["key": Map.value(key)]))") }
    }

    struct Records: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take the records out of a ring buffer or perf event array, one a line.")
        @OptionGroup var daemon: DaemonOptions
        @OptionGroup var place: Place
        @Flag(help: "Go on for ever.") var follow = false

        private struct Reply: Decodable {
            let records: [String]
            let lost: UInt64
        }

        func run() throws {
            var lost: UInt64 = 0
            repeat {
                let reply = try decoded(try daemon.ask("map records \(place.words)"), as: Reply.self)
                if !reply.records.isEmpty { try show(reply.records) }
                if reply.lost > lost { complain("\(reply.lost - lost) records found no room.") }
                lost = reply.lost
                if follow && reply.records.isEmpty { Thread.sleep(forTimeInterval: 0.1) }
            } while follow
        }
    }

    /// What stands on the command line: JSON, or a string without its quotes.
    static func value(_ text: String) -> JSONValue {
        (try? JSONDecoder().decode(JSONValue.self, from: Data(text.utf8))) ?? .string(text)
    }

    static func text(_ value: any Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}

/// What programs print with bpf_printk.
struct Trace: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show what programs print with bpf_printk.")
    @OptionGroup var daemon: DaemonOptions
    @Flag(help: "Go on for ever.") var follow = false

    private struct Reply: Decodable {
        let lines: [String]
        let lost: UInt64
    }

    func run() throws {
        repeat {
            let reply = try decoded(try daemon.ask("trace"), as: Reply.self)
            if !reply.lines.isEmpty { try show(reply.lines) }
            if reply.lost > 0 { complain("\(reply.lost) lines were lost.") }
            if follow && reply.lines.isEmpty { Thread.sleep(forTimeInterval: 0.1) }
        } while follow
    }
}

/// At once, for whoever reads through a pipe.
private func show(_ lines: [String]) throws {
    try FileHandle.standardOutput.write(contentsOf: Data((lines.joined(separator: "\n") + "\n").utf8))
}
