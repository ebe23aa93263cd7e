internal import Foundation

/// A map's entries as documents: keys and values by the object's types, per-CPU values by CPU.
extension BPFMap {
    public struct Refused: Error, Equatable, Sendable {
        public let message: String
    }

    public struct Entry: Codable, Equatable, Sendable {
        public var key: JSONValue
        /// Of a per-CPU map an array, by CPU; where one is given it is every CPU's.
        public var value: JSONValue?

        public init(key: JSONValue, value: JSONValue?) {
            self.key = key
            self.value = value
        }
    }

    private func keyText(_ names: @escaping @Sendable (String) -> UInt32?) -> ValueText {
        ValueText(definition.keyLayout, byteCount: definition.keySize, names: names)
    }

    private func valueText(_ names: @escaping @Sendable (String) -> UInt32?) -> ValueText {
        ValueText(definition.valueLayout, byteCount: definition.valueSize, names: names)
    }

    private var cpuStep: Int { (definition.valueSize + 7) & ~7 }

    public func json(key: [UInt8]) -> JSONValue { keyText { _ in nil }.json(key) }

    public func json(value: [UInt8]) -> JSONValue {
        let text = valueText { _ in nil }
        guard definition.isPerCPU else { return text.json(value) }
        return .array(stride(from: 0, to: value.count, by: cpuStep).map { text.json(Array(value[$0..<($0 + definition.valueSize)])) })
    }

    /// All entries, at most `limit`, in the order of their keys' bytes.
    public func entries(limit: Int) -> [Entry] {
        entries().sorted { $0.key.lexicographicallyPrecedes($1.key) }.prefix(limit).map { Entry(key: json(key: $0.key), value: json(value: $0.value)) }
    }

    public func lookup(_ key: JSONValue) throws(Refused) -> JSONValue? {
        let bytes = try self.bytes(key: key) { _ in nil }
        do throws(MapError) { return try lookup(bytes).map(json(value:)) } catch { throw refusal(error) }
    }

    /// - Parameter names: what strings may stand for numbers.
    public func update(_ entry: Entry, _ mode: UpdateMode = .any, names: @escaping @Sendable (String) -> UInt32? = { _ in nil }) throws(Refused) {
        let key = try bytes(key: entry.key, names)
        guard let given = entry.value else { throw Refused(message: "the value is missing") }
        let value = try bytes(value: given, names)
        do throws(MapError) { try update(key, value, mode) } catch { throw refusal(error) }
    }

    public func delete(_ key: JSONValue) throws(Refused) {
        let bytes = try self.bytes(key: key) { _ in nil }
        do throws(MapError) { try delete(bytes) } catch { throw refusal(error) }
    }

    private func bytes(key: JSONValue, _ names: @escaping @Sendable (String) -> UInt32?) throws(Refused) -> [UInt8] {
        // Queues and stacks have none.
        if definition.keySize == 0, key == .null { return [] }
        do throws(ValueText.Refused) { return try keyText(names).bytes(key) } catch { throw Refused(message: "the key: \(error.message)") }
    }

    private func bytes(value: JSONValue, _ names: @escaping @Sendable (String) -> UInt32?) throws(Refused) -> [UInt8] {
        let text = valueText(names)
        do throws(ValueText.Refused) {
            guard definition.isPerCPU else { return try text.bytes(value) }
            let padding = [UInt8](repeating: 0, count: cpuStep - definition.valueSize), cpus = definition.controlValueSize / cpuStep
            if case .array(let each) = value, each.count == cpus {
                var bytes: [UInt8] = []
                for one in each { bytes += try text.bytes(one) + padding }
                return bytes
            }
            let one = try text.bytes(value) + padding
            return (0..<cpus).flatMap { _ in one }
        } catch {
            throw Refused(message: "the value: \(error.message)")
        }
    }

    private func refusal(_ error: MapError) -> Refused {
        let sentence = switch error {
        case .noSuchKey: "there is no such entry"
        case .keyExists: "there is one already, or the map takes no new ones"
        case .full, .noSpace: "it has \(definition.maxEntries) entries and no room or place for this one"
        case .frozen: "it cannot be changed from here"
        case .notSupported: "a map of type \(definition.typeName) has no such operation"
        case .noSuchDevice: "there is no such device or CPU"
        default: "it takes no such entry (error \(-error.errorNumber))"
        }
        return Refused(message: sentence)
    }
}

extension LoadedProgram {
    /// Fills one of the program's maps from a file's text: JSON, an array of `{"key":…,"value":…}`, or lines of
    /// hexadecimal (`MapContents`). In JSON, strings that `names` knows stand for numbers.
    public func fill(_ map: BPFMap, text: String, names: @escaping @Sendable (String) -> UInt32? = { _ in nil }) throws(BPFMap.Refused) {
        guard text.first(where: { !$0.isWhitespace }) == "[" else {
            do throws(MapContents.Refused) { return try fill(map, try MapContents(text)) } catch { throw BPFMap.Refused(message: "\(error)") }
        }
        let entries: [BPFMap.Entry]
        do {
            entries = try JSONDecoder().decode([BPFMap.Entry].self, from: Data(text.utf8))
        } catch {
            throw BPFMap.Refused(message: "is no array of {\"key\":…,\"value\":…}: \(BPFMap.sentence(error))")
        }
        for (number, entry) in entries.enumerated() {
            do throws(BPFMap.Refused) { try map.update(entry, names: names) } catch {
                throw BPFMap.Refused(message: "entry \(number + 1), map \(map.name): \(error.message)")
            }
        }
    }
}

extension BPFMap {
    /// What a decoder says, in one line.
    static func sentence(_ error: any Error) -> String {
        switch error {
        case DecodingError.keyNotFound(let key, let context): "'\(key.stringValue)' is missing at \(context.codingPath.map(\.stringValue).joined(separator: "."))"
        case DecodingError.dataCorrupted(let context), DecodingError.typeMismatch(_, let context): context.debugDescription
        default: "\(error)".split(separator: "\n").first.map(String.init) ?? ""
        }
    }
}
