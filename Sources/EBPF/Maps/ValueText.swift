/// Keys and values as JSON by their layout, and back. Bytes without a layout are a string of hexadecimal digits in
/// memory's order, `0x…`; every value may be written so.
public struct ValueText: Sendable {
    public struct Refused: Error, Equatable, Sendable {
        public let message: String

        init(_ message: String) { self.message = message }
    }

    let layout: ValueLayout?
    let byteCount: Int
    /// Numbers that have names where this is used: ports.
    let names: @Sendable (String) -> UInt32?

    public init(_ layout: ValueLayout?, byteCount: Int, names: @escaping @Sendable (String) -> UInt32? = { _ in nil }) {
        // A type of another size than the map says is no help.
        self.layout = layout?.byteCount == byteCount ? layout : nil
        self.byteCount = byteCount
        self.names = names
    }

    // MARK: To JSON

    public func json(_ bytes: [UInt8]) -> JSONValue {
        guard let layout, bytes.count == byteCount else { return .string(ValueText.hex(bytes[...])) }
        return ValueText.json(layout, bytes[...])
    }

    static func hex(_ bytes: ArraySlice<UInt8>) -> String {
        let digits = Array("0123456789abcdef".unicodeScalars)
        var text = "0x"
        for byte in bytes {
            text.unicodeScalars.append(digits[Int(byte >> 4)])
            text.unicodeScalars.append(digits[Int(byte & 15)])
        }
        return text
    }

    private static func number(_ bytes: ArraySlice<UInt8>, isNetworkOrder: Bool = false) -> UInt64 {
        let ordered = isNetworkOrder ? Array(bytes) : bytes.reversed()
        return ordered.reduce(0) { $0 << 8 | UInt64($1) }
    }

    private static func extended(_ number: UInt64, bits: Int) -> Int64 {
        let unused = 64 - bits
        return Int64(bitPattern: number << UInt64(unused)) >> Int64(unused)
    }

    private static func json(_ layout: ValueLayout, _ bytes: ArraySlice<UInt8>) -> JSONValue {
        let first = bytes.startIndex
        switch layout {
        case .integer(let count, let isSigned, let isNetworkOrder):
            guard count <= 8 else { return .string(hex(bytes)) }
            let number = number(bytes, isNetworkOrder: isNetworkOrder)
            return isSigned ? .integer(extended(number, bits: count * 8)) : JSONValue(number)
        case .boolean: return .bool(bytes.contains { $0 != 0 })
        case .enumeration(let count, let names):
            let number = extended(number(bytes), bits: count * 8)
            return names[number].map { .string($0) } ?? .integer(number)
        case .text:
            let text = bytes.prefix { $0 != 0 }
            let isPlain = text.allSatisfy { $0 >= 0x20 && $0 < 0x7f } && bytes[(first + text.count)...].allSatisfy { $0 == 0 }
            // What begins like bytes is shown as such, so that it is read back as what it is.
            return .string(isPlain && !text.starts(with: [0x30, 0x78]) ? String(decoding: text, as: UTF8.self) : hex(bytes))
        case .array(let element, let count):
            let size = element.byteCount
            return .array((0..<count).map { json(element, bytes[(first + $0 * size)..<(first + ($0 + 1) * size)]) })
        case .structure(let fields, _), .union(let fields, _):
            var object: [String: JSONValue] = [:]
            for field in fields { object[field.name] = json(field, bytes) }
            return .object(object)
        case .bytes: return .string(hex(bytes))
        }
    }

    private static func json(_ field: ValueLayout.Field, _ bytes: ArraySlice<UInt8>) -> JSONValue {
        let start = bytes.startIndex + field.offset
        let own = bytes[start..<(start + field.layout.byteCount)]
        guard let bits = field.bits else { return json(field.layout, own) }
        let raw = number(own) >> UInt64(bits.shift) & (bits.count == 64 ? .max : 1 << UInt64(bits.count) &- 1)
        switch field.layout {
        case .integer(_, true, _): return .integer(extended(raw, bits: bits.count))
        case .boolean: return .bool(raw != 0)
        case .enumeration(_, let names): return names[Int64(raw)].map { .string($0) } ?? JSONValue(raw)
        default: return JSONValue(raw)
        }
    }

    // MARK: From JSON

    public func bytes(_ value: JSONValue) throws(Refused) -> [UInt8] {
        if case .string(let text) = value, text.hasPrefix("0x"), let bytes = MapContents.bytes(text), bytes.count == byteCount { return bytes }
        guard let layout else {
            // Without a type a number is one of the machine's, if it can be.
            if let bits = value.bits, byteCount <= 8 { return try write(.integer(bytes: byteCount, isSigned: false, isNetworkOrder: false), .init(bits), "") }
            if case .string(let name) = value, byteCount == 4, let number = names(name) { return ValueText.encoded(UInt64(number), 4, isNetworkOrder: false) }
            throw Refused("has no type here: write 0x and \(byteCount) bytes in hexadecimal")
        }
        return try write(layout, value, "")
    }

    private static func encoded(_ number: UInt64, _ count: Int, isNetworkOrder: Bool) -> [UInt8] {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: number >> (8 * UInt64($0))) }
        return isNetworkOrder ? bytes.reversed() : bytes
    }

    /// - Parameter path: which field, for messages.
    private func write(_ layout: ValueLayout, _ value: JSONValue, _ path: String) throws(Refused) -> [UInt8] {
        let place = path.isEmpty ? "" : "\(path): "
        if case .string(let text) = value, text.hasPrefix("0x"), let bytes = MapContents.bytes(text), bytes.count == layout.byteCount { return bytes }
        switch layout {
        case .integer(let count, let isSigned, let isNetworkOrder):
            return ValueText.encoded(try number(value, bits: count * 8, isSigned: isSigned, place), count, isNetworkOrder: isNetworkOrder)
        case .boolean(let count):
            guard case .bool(let flag) = value else { throw Refused("\(place)write true or false") }
            return ValueText.encoded(flag ? 1 : 0, count, isNetworkOrder: false)
        case .enumeration(let count, let known):
            if case .string(let name) = value {
                guard let number = known.first(where: { $0.value == name })?.key else {
                    throw Refused("\(place)there is no '\(name)', but \(known.sorted { $0.key < $1.key }.map(\.value).prefix(16).joined(separator: ", "))")
                }
                return ValueText.encoded(UInt64(bitPattern: number), count, isNetworkOrder: false)
            }
            return ValueText.encoded(try number(value, bits: count * 8, isSigned: true, place), count, isNetworkOrder: false)
        case .text(let count):
            guard case .string(let text) = value, text.utf8.count <= count else { throw Refused("\(place)write a string of at most \(count) bytes") }
            return Array(text.utf8) + [UInt8](repeating: 0, count: count - text.utf8.count)
        case .array(let element, let count):
            guard case .array(let values) = value, values.count == count else { throw Refused("\(place)write an array of \(count)") }
            var bytes: [UInt8] = []
            for (index, item) in values.enumerated() { bytes += try write(element, item, "\(path)[\(index)]") }
            return bytes
        case .structure(let fields, let count): return try write(fields, count, value, path, isUnion: false)
        case .union(let fields, let count): return try write(fields, count, value, path, isUnion: true)
        case .bytes(let count): throw Refused("\(place)write 0x and \(count) bytes in hexadecimal")
        }
    }

    private func number(_ value: JSONValue, bits: Int, isSigned: Bool, _ place: String) throws(Refused) -> UInt64 {
        if case .string(let name) = value {
            guard let number = names(name) else { throw Refused("\(place)'\(name)' is no number, and nothing here has that name") }
            return UInt64(number)
        }
        guard let number = value.bits else { throw Refused("\(place)write a number") }
        let isNegative = if case .integer(let v) = value { v < 0 } else { false }
        let fits = bits >= 64 ? !(isNegative && !isSigned)
            : isNegative ? isSigned && Int64(bitPattern: number) >= -(1 << (bits - 1)) : number >> UInt64(isSigned ? bits - 1 : bits) == 0
        guard fits else { throw Refused("\(place)\(isNegative ? "\(Int64(bitPattern: number))" : "\(number)") does not fit into \(bits) \(isSigned ? "" : "unsigned ")bits") }
        return number
    }

    /// Every field of a structure, or one of a union: bytes between them are 0.
    private func write(_ fields: [ValueLayout.Field], _ count: Int, _ value: JSONValue, _ path: String, isUnion: Bool) throws(Refused) -> [UInt8] {
        let place = path.isEmpty ? "" : "\(path): "
        let all = fields.map(\.name).joined(separator: ", ")
        guard case .object(let given) = value else { throw Refused("\(place)write an object of \(all)") }
        if let unknown = given.keys.sorted().first(where: { name in !fields.contains { $0.name == name } }) {
            throw Refused("\(place)there is no field '\(unknown)', but \(all)")
        }
        let missing = fields.filter { given[$0.name] == nil }.map(\.name)
        if isUnion ? given.count != 1 : !missing.isEmpty {
            throw Refused(isUnion ? "\(place)write one field of \(all)" : "\(place)\(missing.joined(separator: ", ")) \(missing.count == 1 ? "is" : "are") missing")
        }
        var bytes = [UInt8](repeating: 0, count: count)
        for field in fields {
            guard let item = given[field.name] else { continue }
            let inner = path.isEmpty ? field.name : "\(path).\(field.name)"
            if let bits = field.bits {
                let isSigned = if case .integer(_, true, _) = field.layout { true } else { false }
                let raw: UInt64
                if case .bool(let flag) = item { raw = flag ? 1 : 0 } else { raw = try number(item, bits: bits.count, isSigned: isSigned, "\(inner): ") }
                let masked = (bits.count == 64 ? raw : raw & (1 << UInt64(bits.count) &- 1)) << UInt64(bits.shift)
                for byte in 0..<field.layout.byteCount { bytes[field.offset + byte] |= UInt8(truncatingIfNeeded: masked >> (8 * UInt64(byte))) }
            } else {
                let own = try write(field.layout, item, inner)
                bytes.replaceSubrange(field.offset..<(field.offset + own.count), with: own)
            }
        }
        return bytes
    }
}
