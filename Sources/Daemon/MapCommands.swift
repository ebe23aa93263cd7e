import Control
import EBPF
import Foundation

/// `map …` and `trace` of the stats socket: the maps of the running programs, and what programs print.
///
/// Whatever is read here lcores may write at the same time; they never wait for it.
struct MapCommands: Sendable {
    struct Program: Sendable {
        let section: String
        let program: LoadedProgram
    }

    let programs: [Program]
    /// Ports by name, for values that name one.
    let ports: [String: UInt32]

    /// More than fits in a reply that people read; whoever needs all of a larger map asks for keys.
    static let entriesMax = 1 << 18
    static let usage = "write 'map list', 'map dump|records PROGRAM MAP', 'map lookup|delete PROGRAM MAP {\"key\":…}' or 'map update PROGRAM MAP {\"entries\":[{\"key\":…,\"value\":…},…]}'"

    struct Listed: Codable {
        let program: String, map: String, type: String
        let key_bytes: Int, value_bytes: Int, max_entries: Int, entries: Int, memory_bytes: Int
    }

    struct Dump: Codable {
        let program: String, map: String
        let entries: [BPFMap.Entry]
        /// There are more.
        let truncated: Bool
    }

    /// What `update` takes.
    private struct Update: Decodable {
        let entries: [BPFMap.Entry]
        let mode: String?
    }

    private struct Key: Decodable { let key: JSONValue }

    struct Refused: Error, CustomStringConvertible { let description: String }

    /// Before the first packet: what the configuration gives maps to start with, and rings for events.
    func fill(_ configuration: Configuration) throws(Refused) {
        for (section, program) in zip(configuration.programs, programs) {
            for map in program.program.maps where map.needsRings {
                if !map.openEvents(bytes: Self.eventBytes) { throw Refused(description: "[xdp \(section.name)]: not enough memory for the events of map \(map.name)") }
            }
            for file in section.maps { try fill(file, section.name, program.program) }
        }
    }

    /// Of each CPU.
    private static let eventBytes = 1 << 16

    private func fill(_ file: XDPConfiguration.MapFile, _ section: String, _ program: LoadedProgram) throws(Refused) {
        let place = "[xdp \(section)] map.\(file.name) (line \(file.line))"
        guard let map = program.map(named: file.name) else {
            throw Refused(description: "\(place): \(program.name) has no map '\(file.name)', but \(program.maps.map(\.name).joined(separator: ", "))")
        }
        guard let text = try? String(contentsOfFile: file.file, encoding: .utf8) else {
            throw Refused(description: "\(place): \(file.file) cannot be read")
        }
        let ports = ports
        do throws(BPFMap.Refused) { try program.fill(map, text: text, names: { ports[$0] }) } catch {
            throw Refused(description: "\(place): \(file.file): \(error.message)")
        }
    }

    func map(_ words: [Substring]) throws(CommandError) -> Data {
        if words == ["list"] { return ControlReply.json(["maps": list()]) }
        guard words.count >= 3 else { throw CommandError(Self.usage) }
        let map = try find(String(words[1]), String(words[2]))
        let document = Data(words[3...].joined(separator: " ").utf8)
        switch (words[0], words.count) {
        case ("dump", 3): return ControlReply.json(dump(String(words[1]), map))
        case ("records", 3): return try records(map)
        case ("lookup", 4...):
            let key = try decoded(Key.self, document).key
            guard let value = try answer({ () throws(BPFMap.Refused) -> JSONValue? in try map.lookup(key) }) else {
                throw CommandError("there is no such entry")
            }
            return ControlReply.json(BPFMap.Entry(key: key, value: value))
        case ("delete", 4...):
            let key = try decoded(Key.self, document).key
            try answer { () throws(BPFMap.Refused) in try map.delete(key) }
            return ControlReply.json(["deleted": 1])
        case ("update", 4...): return try update(map, try decoded(Update.self, document))
        default: throw CommandError(Self.usage)
        }
    }

    private func list() -> [Listed] {
        programs.flatMap { program in
            program.program.maps.map {
                Listed(program: program.section, map: $0.name, type: $0.definition.typeName, key_bytes: $0.definition.keySize,
                       value_bytes: $0.definition.valueSize, max_entries: $0.definition.maxEntries, entries: $0.count, memory_bytes: $0.memoryBytes)
            }
        }
    }

    private func find(_ section: String, _ name: String) throws(CommandError) -> BPFMap {
        guard let program = programs.first(where: { $0.section == section })?.program else {
            throw CommandError("there is no program '\(section)'; there are \(programs.map(\.section).joined(separator: ", "))")
        }
        guard let map = program.map(named: name) else {
            throw CommandError("\(section) has no map '\(name)', but \(program.maps.map(\.name).joined(separator: ", "))")
        }
        return map
    }

    private func dump(_ section: String, _ map: BPFMap) -> Dump {
        let entries = map.entries(limit: Self.entriesMax)
        return Dump(program: section, map: map.name, entries: entries, truncated: entries.count == Self.entriesMax && map.count > entries.count)
    }

    private func update(_ map: BPFMap, _ update: Update) throws(CommandError) -> Data {
        let mode: BPFMap.UpdateMode
        switch update.mode {
        case nil, "any": mode = .any
        case "new": mode = .onlyNew
        case "existing": mode = .onlyExisting
        case let other?: throw CommandError("there is no mode '\(other)', but any, new, existing")
        }
        let ports = ports
        for (number, entry) in update.entries.enumerated() {
            do throws(BPFMap.Refused) { try map.update(entry, mode, names: { ports[$0] }) } catch {
                throw CommandError("map \(map.name), entry \(number + 1) of \(update.entries.count): \(error.message); those before it were made")
            }
        }
        return ControlReply.json(["updated": update.entries.count])
    }

    /// Takes the records out: whoever asks is the consumer.
    private func records(_ map: BPFMap) throws(CommandError) -> Data {
        struct Records: Encodable {
            let records: [String]
            let lost: UInt64
        }
        var records: [String] = []
        guard let taken = map.takeRecords(most: 4096, { records.append($0) }) else {
            throw CommandError("map \(map.name) is a \(map.definition.typeName): only ring buffers and perf event arrays have records")
        }
        return ControlReply.json(Records(records: records, lost: taken))
    }

    private func decoded<Document: Decodable>(_: Document.Type, _ data: Data) throws(CommandError) -> Document {
        do { return try JSONDecoder().decode(Document.self, from: data) } catch { throw CommandError("the document cannot be read; \(Self.usage)") }
    }

    private func answer<Answer>(_ body: () throws(BPFMap.Refused) -> Answer) throws(CommandError) -> Answer {
        do throws(BPFMap.Refused) { return try body() } catch { throw CommandError(error.message) }
    }

    /// What programs printed since somebody asked last.
    func trace() -> Data {
        struct Trace: Encodable {
            let lines: [String]
            let lost: UInt64
        }
        let (lines, lost) = ProgramTrace.take()
        return ControlReply.json(Trace(lines: lines, lost: lost))
    }
}
