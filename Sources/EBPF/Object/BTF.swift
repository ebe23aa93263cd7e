/// The types of an object: enough of them to read map definitions and to name what a message is about.
struct BTF {
    struct TypeRecord {
        let kind: Kind
        let name: String
        let sizeOrType: UInt32
        let members: [Member]       // of structs, unions and data sections
        let elementType: UInt32     // of arrays
        let elementCount: UInt32
    }

    /// A struct's member (offset in bits), or a data section's variable (offset in bytes, size).
    struct Member {
        let name: String
        let type: UInt32
        let offset: UInt32
        let size: UInt32
    }

    enum Kind: UInt8 {
        case void = 0, int, pointer, array, structure, union, enumeration, forward, typedef, volatile, const, restrict
        case function, functionPrototype, variable, dataSection, float, declarationTag, typeTag, enumeration64
    }

    private let types: [TypeRecord]     // [0] is void
    private let strings: ByteView

    init(_ data: ByteView) throws(Malformed) {
        guard try data.u16(0) == 0xeb9f else { throw Malformed(".BTF: wrong magic number") }
        guard try data.u8(2) == 1 else { throw Malformed(".BTF: version \(try data.u8(2)), not 1") }
        let header = Int(try data.u32(4))
        let body = try data.part(header, data.count - min(header, data.count), ".BTF: the part behind the header")
        let records = try body.part(UInt64(try data.u32(8)), UInt64(try data.u32(12)), ".BTF: types")
        strings = try body.part(UInt64(try data.u32(16)), UInt64(try data.u32(20)), ".BTF: strings")
        types = try BTF.readTypes(records, strings)
    }

    func string(_ offset: UInt32) throws(Malformed) -> String { try strings.string(offset) }

    func type(_ id: UInt32) throws(Malformed) -> TypeRecord {
        guard id < types.count else { throw Malformed(".BTF: no type \(id)") }
        return types[Int(id)]
    }

    func dataSection(named name: String) -> TypeRecord? { types.first { $0.kind == .dataSection && $0.name == name } }

    /// Through typedefs and qualifiers to the type itself.
    func stripped(_ id: UInt32) throws(Malformed) -> TypeRecord {
        var record = try type(id)
        for _ in 0..<32 {
            switch record.kind {
            case .typedef, .volatile, .const, .restrict, .typeTag: record = try type(record.sizeOrType)
            default: return record
            }
        }
        throw Malformed(".BTF: type \(id) never ends")
    }

    /// Size in bytes, as the compiler lays it out.
    func size(_ id: UInt32, depth: Int = 0) throws(Malformed) -> UInt32 {
        guard depth < 32 else { throw Malformed(".BTF: type \(id) never ends") }
        let record = try stripped(id)
        switch record.kind {
        case .int, .structure, .union, .enumeration, .enumeration64, .float, .dataSection: return record.sizeOrType
        case .pointer: return 8
        case .array:
            let (size, overflow) = try self.size(record.elementType, depth: depth + 1)
                .multipliedReportingOverflow(by: record.elementCount)
            guard !overflow else { throw Malformed(".BTF: array type \(id) is too large") }
            return size
        default: throw Malformed(".BTF: type \(id) has no size")
        }
    }

    private static func readTypes(_ data: ByteView, _ strings: ByteView) throws(Malformed) -> [TypeRecord] {
        var types = [TypeRecord(kind: .void, name: "void", sizeOrType: 0, members: [], elementType: 0, elementCount: 0)]
        var at = 0
        while at < data.count {
            let info = try data.u32(at + 4)
            guard let kind = Kind(rawValue: UInt8(info >> 24 & 0x1f)), kind != .void else {
                throw Malformed(".BTF: type \(types.count) is of unknown kind \(info >> 24 & 0x1f)")
            }
            let name = try strings.string(try data.u32(at))
            let sizeOrType = try data.u32(at + 8)
            let count = Int(info & 0xffff)
            at += 12
            var members: [Member] = []
            var element: (type: UInt32, count: UInt32) = (0, 0)
            switch kind {
            case .structure, .union:
                for i in 0..<count {
                    members.append(Member(name: try strings.string(try data.u32(at + 12 * i)), type: try data.u32(at + 12 * i + 4),
                                          offset: try data.u32(at + 12 * i + 8), size: 0))
                }
                at += 12 * count
            case .dataSection:
                for i in 0..<count {
                    members.append(Member(name: "", type: try data.u32(at + 12 * i), offset: try data.u32(at + 12 * i + 4),
                                          size: try data.u32(at + 12 * i + 8)))
                }
                at += 12 * count
            case .array:
                element = (try data.u32(at), try data.u32(at + 8))
                at += 12
            case .enumeration, .functionPrototype: at += 8 * count
            case .enumeration64: at += 12 * count
            case .int, .variable, .declarationTag: at += 4
            default: break
            }
            types.append(TypeRecord(kind: kind, name: name, sizeOrType: sizeOrType, members: members,
                                    elementType: element.type, elementCount: element.count))
        }
        guard at == data.count else { throw Malformed(".BTF: the last type is cut off") }
        return types
    }
}
