/// Turns a type of an object into what is needed to show its values. Types without end, or without sense, become bytes.
struct ValueLayoutReader {
    private let types: BTF
    /// A map's value is what somebody wrote down; more than this is a mutation.
    private var recordsLeft = 4096
    private static let depthMax = 16

    private init(_ types: BTF) { self.types = types }

    /// Nil for a type that is none.
    static func layout(of type: UInt32, _ types: BTF) -> ValueLayout? {
        guard type != 0 else { return nil }
        var reader = ValueLayoutReader(types)
        return try? reader.layout(type, depth: 0)
    }

    private mutating func layout(_ id: UInt32, depth: Int) throws(Malformed) -> ValueLayout {
        recordsLeft -= 1
        guard depth < ValueLayoutReader.depthMax, recordsLeft > 0 else { throw Malformed(".BTF: type \(id) is too deep") }
        let record = try types.stripped(id), size = try Int(types.size(id))
        switch record.kind {
        case .int:
            guard size <= 8 else { return .bytes(size) }
            if record.isBoolean { return .boolean(bytes: size) }
            return .integer(bytes: size, isSigned: record.isSignedInteger, isNetworkOrder: try isNetworkOrder(id))
        case .enumeration, .enumeration64:
            var names: [Int64: String] = [:]
            // Signed or not, 32 bits or 64: as the bytes of a value are read.
            for (name, value) in record.enumerators {
                let unused = Int64(64 - 8 * min(max(size, 1), 8))
                names[(Int64(bitPattern: value) << unused) >> unused] = name
            }
            return .enumeration(bytes: size, names: names)
        case .array:
            let element = try types.stripped(record.elementType)
            if element.kind == .int, element.name == "char" { return .text(bytes: size) }
            return .array(try layout(record.elementType, depth: depth + 1), count: Int(record.elementCount))
        case .structure, .union:
            let fields = try self.fields(record, depth: depth)
            guard fields.allSatisfy({ $0.offset + $0.layout.byteCount <= size }) else { throw Malformed(".BTF: a field lies outside of \(record.name)") }
            return record.kind == .structure ? .structure(fields, bytes: size) : .union(fields, bytes: size)
        default: return .bytes(size)
        }
    }

    /// `__be16`, `__be32`, `__be64` are typedefs of numbers.
    private func isNetworkOrder(_ id: UInt32) throws(Malformed) -> Bool {
        var record = try types.type(id)
        for _ in 0..<32 {
            switch record.kind {
            case .typedef where record.name.hasPrefix("__be"): return true
            case .typedef, .volatile, .const, .restrict, .typeTag: record = try types.type(record.sizeOrType)
            default: return false
            }
        }
        return false
    }

    /// Of a structure without a name inside another, its fields stand among the outer one's, as in C.
    private mutating func fields(_ record: BTF.TypeRecord, depth: Int) throws(Malformed) -> [ValueLayout.Field] {
        var fields: [ValueLayout.Field] = []
        for member in record.members {
            let inner = try layout(member.type, depth: depth + 1)
            // Of a record with bitfields the offset's upper byte is the width.
            let width = record.isFlagged ? Int(member.size) : 0, offset = Int(member.offset)
            if member.name.isEmpty, case .structure(let nested, _) = inner {
                for var field in nested {
                    field = ValueLayout.Field(name: field.name, offset: field.offset + offset / 8, layout: field.layout, bits: field.bits)
                    fields.append(field)
                }
            } else if width > 0 {
                // The unit of its type that it lies in.
                let unit = max(inner.byteCount, 1) * 8, start = offset / unit * unit
                guard offset + width <= start + unit, inner.byteCount <= 8 else { throw Malformed(".BTF: a bitfield of \(record.name) has no place") }
                fields.append(.init(name: member.name, offset: start / 8, layout: inner, bits: .init(shift: offset - start, count: width)))
            } else {
                guard !member.name.isEmpty else { continue }
                fields.append(.init(name: member.name, offset: offset / 8, layout: inner))
            }
        }
        return fields
    }
}
