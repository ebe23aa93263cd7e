/// Initial contents of a map, as text: an entry a line, key and value as hexadecimal bytes with a colon or `=` between
/// them, `#` in front of a remark. What `bpftool map dump` prints is understood too. A program array's values are names
/// of programs, a map of maps' are names of maps.
public struct MapContents: Sendable {
    public struct Refused: Error, CustomStringConvertible {
        public let line: Int
        public let message: String

        public var description: String { "line \(line): \(message)" }
    }

    public enum Value: Sendable, Equatable { case bytes([UInt8]), name(String) }

    public let entries: [(line: Int, key: [UInt8], value: Value)]

    public init(_ text: String) throws(Refused) {
        var entries: [(line: Int, key: [UInt8], value: Value)] = []
        for (index, raw) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let number = index + 1
            var line = String(raw.prefix { $0 != "#" })
            // bpftool: "key: 01 00  value: 02", and a count at the end.
            if line.hasPrefix("Found ") { continue }
            if let range = line.firstRange(of: "value:") {
                line.replaceSubrange(range, with: "=")
                if let key = line.firstRange(of: "key:") { line.removeSubrange(key) }
            }
            if line.allSatisfy(\.isWhitespace) { continue }
            guard let split = line.firstIndex(where: { $0 == "=" || $0 == ":" }) else {
                throw Refused(line: number, message: "no '=' between key and value")
            }
            guard let key = MapContents.bytes(line[..<split]) else {
                throw Refused(line: number, message: "the key is not hexadecimal bytes, such as '0a 00 00 01'")
            }
            let rest = line[line.index(after: split)...]
            if let value = MapContents.bytes(rest) {
                entries.append((number, key, .bytes(value)))
            } else {
                entries.append((number, key, .name(String(rest.split(whereSeparator: \.isWhitespace).joined(separator: " ")))))
            }
        }
        self.entries = entries
    }

    /// Pairs of digits, with or without blanks and 0x in between; nil for anything else.
    public static func bytes(_ text: some StringProtocol) -> [UInt8]? {
        var bytes: [UInt8] = []
        for word in text.split(whereSeparator: \.isWhitespace) {
            let digits = Array((word.hasPrefix("0x") ? word.dropFirst(2) : word[...]).utf8)
            guard digits.count % 2 == 0 else { return nil }
            for at in stride(from: 0, to: digits.count, by: 2) {
                guard let byte = UInt8(String(decoding: digits[at..<(at + 2)], as: UTF8.self), radix: 16), digits[at] != 0x2b, digits[at] != 0x2d else { return nil }
                bytes.append(byte)
            }
        }
        return bytes
    }
}

extension LoadedProgram {
    /// Fills one of the program's maps.
    public func fill(_ map: BPFMap, _ contents: MapContents) throws(MapContents.Refused) {
        for (line, key, value) in contents.entries {
            do throws(MapError) {
                switch value {
                case .bytes(let bytes): try map.update(key, bytes)
                case .name(let name): try put(name, into: map, key)
                }
            } catch {
                throw MapContents.Refused(line: line, message: LoadedProgram.sentence(error, map, key))
            }
        }
    }

    private func put(_ name: String, into map: BPFMap, _ key: [UInt8]) throws(MapError) {
        if let inner = self.map(named: name) { return try map.setMap(key, inner) }
        throw .notSupported
    }

    private static func sentence(_ error: MapError, _ map: BPFMap, _ key: [UInt8]) -> String {
        let what = "map \(map.name), a map of type \(map.definition.typeName)"
        return switch error {
        case .wrongSize(let expected) where key.count == expected && key.count != map.definition.keySize: "\(what): the value has \(expected) bytes"
        case .wrongSize(let expected): "\(what): keys have \(map.definition.keySize) bytes and values \(map.definition.controlValueSize), here are not \(expected)"
        case .full, .noSpace: "\(what), has \(map.definition.maxEntries) entries and no room or place for this one"
        case .frozen: "\(what), cannot be changed"
        case .notSupported: "\(what): its values are no names, or there is none of this name"
        case .noSuchDevice: "\(what): there is no such device or CPU"
        default: "\(what), takes no such entry (error \(-error.errorNumber))"
        }
    }
}
