/// A set of types, an object's or the running kernel's: enough of them to read map definitions, to name what a message
/// is about, and to relocate by them. The kernel's has 150 000 types: records are decoded when asked for.
struct BTF {
    struct TypeRecord {
        let kind: Kind
        let name: String
        let sizeOrType: UInt32
        /// Of functions: linkage. Of integers: encoding, offset and bits. Of variables: linkage.
        let detail: UInt32
        /// Enumerations: values are signed. Structures: members may be bitfields. Forward declarations: of a union.
        let isFlagged: Bool
        let members: [Member]       // of structs, unions and data sections; parameters of function prototypes
        let enumerators: [(name: String, value: UInt64)]
        let elementType: UInt32     // of arrays
        let elementCount: UInt32

        var isComposite: Bool { kind == .structure || kind == .union }
        var isEnumeration: Bool { kind == .enumeration || kind == .enumeration64 }
        /// BTF_INT_SIGNED, BTF_INT_BOOL
        var isSignedInteger: Bool { kind == .int && detail >> 24 & 1 != 0 }
        var isBoolean: Bool { kind == .int && detail >> 24 & 4 != 0 }
        /// Integers that begin inside a byte: bitfields of old compilers.
        var integerOffset: UInt32 { kind == .int ? detail >> 16 & 0xff : 0 }
    }

    /// A struct's member (offset and size of a bitfield in bits), or a data section's variable (offset and size in bytes).
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

    private let records: ByteView
    private let strings: ByteView
    private let places: [UInt32]    // where each record starts; [0] is void and has none
    private let names: [UInt32]     // where each name does

    init(_ data: ByteView) throws(Malformed) {
        guard try data.u16(0) == 0xeb9f else { throw Malformed(".BTF: wrong magic number") }
        guard try data.u8(2) == 1 else { throw Malformed(".BTF: version \(try data.u8(2)), not 1") }
        let header = Int(try data.u32(4))
        let body = try data.part(header, data.count - min(header, data.count), ".BTF: the part behind the header")
        records = try body.part(UInt64(try data.u32(8)), UInt64(try data.u32(12)), ".BTF: types")
        strings = try body.part(UInt64(try data.u32(16)), UInt64(try data.u32(20)), ".BTF: strings")
        (places, names) = try BTF.findRecords(records)
    }

    /// Types, void included.
    var count: UInt32 { UInt32(places.count) }

    func string(_ offset: UInt32) throws(Malformed) -> String { try strings.string(offset) }

    func type(_ id: UInt32) throws(Malformed) -> TypeRecord {
        guard id < places.count else { throw Malformed(".BTF: no type \(id)") }
        return try decode(id)
    }

    func kind(_ id: UInt32) throws(Malformed) -> Kind {
        guard id < places.count else { throw Malformed(".BTF: no type \(id)") }
        if id == 0 { return .void }
        return Kind(rawValue: UInt8(try records.u32(Int(places[Int(id)]) + 4) >> 24 & 0x1f)) ?? .void
    }

    func name(_ id: UInt32) throws(Malformed) -> String {
        if id == 0 { return "void" }
        guard id < places.count else { throw Malformed(".BTF: no type \(id)") }
        return try strings.string(names[Int(id)])
    }

    /// Types whose names begin with these bytes, in order.
    func types(prefixed prefix: [UInt8]) throws(Malformed) -> [UInt32] {
        var found: [UInt32] = []
        for id in 1..<max(names.count, 1) where strings.has(prefix, at: Int(names[id])) { found.append(UInt32(id)) }
        return found
    }

    func type(named name: String, _ kind: Kind) throws(Malformed) -> UInt32? {
        for id in try types(prefixed: Array(name.utf8) + [0]) where try self.kind(id) == kind { return id }
        return nil
    }

    func dataSection(named name: String) throws(Malformed) -> TypeRecord? {
        try type(named: name, .dataSection).map { id throws(Malformed) in try type(id) }
    }

    /// Through typedefs and qualifiers to the type itself.
    func stripped(_ id: UInt32) throws(Malformed) -> TypeRecord { try type(try strippedID(id)) }

    func strippedID(_ id: UInt32) throws(Malformed) -> UInt32 {
        var id = id
        for _ in 0..<32 {
            switch try kind(id) {
            case .typedef, .volatile, .const, .restrict, .typeTag: id = try records.u32(Int(places[Int(id)]) + 8)
            default: return id
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

    // MARK: Records

    /// Bytes behind a record's first twelve.
    private static func tail(_ kind: Kind, _ count: Int) -> Int {
        switch kind {
        case .structure, .union, .dataSection, .enumeration64: 12 * count
        case .array: 12
        case .enumeration, .functionPrototype: 8 * count
        case .int, .variable, .declarationTag: 4
        default: 0
        }
    }

    private static func findRecords(_ data: ByteView) throws(Malformed) -> (places: [UInt32], names: [UInt32]) {
        var places: [UInt32] = [0], names: [UInt32] = [0]
        var at = 0
        while at < data.count {
            let info = try data.u32(at + 4)
            guard let kind = Kind(rawValue: UInt8(info >> 24 & 0x1f)), kind != .void else {
                throw Malformed(".BTF: type \(places.count) is of unknown kind \(info >> 24 & 0x1f)")
            }
            places.append(UInt32(at))
            names.append(try data.u32(at))
            at += 12 + tail(kind, Int(info & 0xffff))
        }
        guard at == data.count else { throw Malformed(".BTF: the last type is cut off") }
        return (places, names)
    }

    private func decode(_ id: UInt32) throws(Malformed) -> TypeRecord {
        if id == 0 {
            return TypeRecord(kind: .void, name: "void", sizeOrType: 0, detail: 0, isFlagged: false, members: [], enumerators: [], elementType: 0, elementCount: 0)
        }
        var at = Int(places[Int(id)])
        let info = try records.u32(at + 4), kind = try self.kind(id), isFlagged = info >> 31 != 0
        let name = try strings.string(try records.u32(at)), sizeOrType = try records.u32(at + 8)
        at += 12
        var members: [Member] = [], enumerators: [(name: String, value: UInt64)] = []
        var detail: UInt32 = 0, element: (type: UInt32, count: UInt32) = (0, 0)
        for i in 0..<Int(info & 0xffff) {
            switch kind {
            case .structure, .union:
                let offset = try records.u32(at + 12 * i + 8)
                members.append(Member(name: try strings.string(try records.u32(at + 12 * i)), type: try records.u32(at + 12 * i + 4),
                                      offset: isFlagged ? offset & 0xff_ffff : offset, size: isFlagged ? offset >> 24 : 0))
            case .dataSection:
                members.append(Member(name: "", type: try records.u32(at + 12 * i), offset: try records.u32(at + 12 * i + 4),
                                      size: try records.u32(at + 12 * i + 8)))
            case .functionPrototype:
                members.append(Member(name: "", type: try records.u32(at + 8 * i + 4), offset: 0, size: 0))
            case .enumeration:
                let value = Int64(Int32(bitPattern: try records.u32(at + 8 * i + 4)))
                enumerators.append((try strings.string(try records.u32(at + 8 * i)), UInt64(bitPattern: value)))
            case .enumeration64:
                enumerators.append((try strings.string(try records.u32(at + 12 * i)), try records.u64(at + 12 * i + 4)))
            default: break
            }
        }
        switch kind {
        case .array: element = (try records.u32(at), try records.u32(at + 8))
        case .int, .variable: detail = try records.u32(at)
        case .function: detail = info & 0xffff
        default: break
        }
        return TypeRecord(kind: kind, name: name, sizeOrType: sizeOrType, detail: detail, isFlagged: isFlagged, members: members,
                          enumerators: enumerators, elementType: element.type, elementCount: element.count)
    }
}
