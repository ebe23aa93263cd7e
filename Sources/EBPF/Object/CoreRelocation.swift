/// What a CO-RE relocation asks (enum bpf_core_relo_kind).
enum CoreKind: UInt32 {
    case byteOffset = 0, byteSize, exists, isSigned, leftShift, rightShift
    case localTypeID, typeID, typeExists, typeSize
    case enumeratorExists, enumeratorValue
    case typeMatches

    var isField: Bool { rawValue <= CoreKind.rightShift.rawValue }
    var isEnumerator: Bool { self == .enumeratorExists || self == .enumeratorValue }
    var isType: Bool { !isField && !isEnumerator }

    var question: String {
        switch self {
        case .byteOffset: "offset"
        case .byteSize: "size"
        case .exists, .typeExists, .enumeratorExists: "existence"
        case .isSigned: "signedness"
        case .leftShift, .rightShift: "position"
        case .localTypeID, .typeID: "number"
        case .typeSize: "size"
        case .enumeratorValue: "value"
        case .typeMatches: "likeness"
        }
    }
}

/// A way into a type, member by member: as the object has it, or as the kernel does. The rules are libbpf's
/// (`relo_core.c`, version 1.1): its output must equal ours to the bit.
struct CorePath {
    struct Step {
        let type: UInt32
        let index: Int
        /// Of a member or an enumerator; nil for an element of an array.
        let name: String?
    }

    let root: UInt32
    var steps: [Step] = []
    var bitOffset: UInt32 = 0
    /// Steps, those through nameless members included.
    var depth = 0

    static let depthMax = 64

    init(root: UInt32) { self.root = root }

    /// As the object wrote it.
    init(_ record: BTFExtension.CoreRecord, _ kind: CoreKind, in types: BTF) throws(Malformed) {
        root = record.type
        if kind.isType {
            guard record.access == "0" else { throw CorePath.malformed(record) }
            return
        }
        let parts = record.access.split(separator: ":", omittingEmptySubsequences: false).map { Int($0) }
        guard !parts.isEmpty, parts.count <= CorePath.depthMax, let first = parts[0] else { throw CorePath.malformed(record) }
        var id = try types.strippedID(record.type)
        if kind.isEnumerator {
            let record = try types.type(id)
            guard record.isEnumeration, parts.count == 1, record.enumerators.indices.contains(first) else { throw CorePath.malformed(name: record.name) }
            steps.append(Step(type: id, index: first, name: record.enumerators[first].name))
            return
        }
        steps.append(Step(type: id, index: first, name: nil))
        bitOffset = CorePath.bits(first, try types.size(id))
        for part in parts.dropFirst() {
            guard let index = part, index >= 0 else { throw CorePath.malformed(record) }
            id = try types.strippedID(id)
            let type = try types.type(id)
            if type.isComposite {
                guard index < type.members.count else { throw CorePath.malformed(record) }
                let member = type.members[index]
                bitOffset &+= member.offset
                if !member.name.isEmpty { steps.append(Step(type: id, index: index, name: member.name)) }
                id = member.type
            } else if type.kind == .array {
                let isFlexible = try CorePath.isFlexible(type, behind: steps.last, types)
                guard isFlexible || index < type.elementCount else { throw CorePath.malformed(record) }
                id = try types.strippedID(type.elementType)
                steps.append(Step(type: id, index: index, name: nil))
                bitOffset &+= CorePath.bits(index, try types.size(id))
            } else {
                throw CorePath.malformed(record)
            }
        }
    }

    /// A last member of size 0 stands for as many elements as there are.
    static func isFlexible(_ array: BTF.TypeRecord, behind step: Step?, _ types: BTF) throws(Malformed) -> Bool {
        guard let step, step.name != nil, array.elementCount == 0 else { return false }
        return step.index == (try types.type(step.type)).members.count - 1
    }

    static func bits(_ index: Int, _ size: UInt32) -> UInt32 { UInt32(truncatingIfNeeded: index) &* size &* 8 }

    private static func malformed(_ record: BTFExtension.CoreRecord) -> Malformed {
        Malformed("CO-RE relocation by '\(record.access)' does not fit its type")
    }

    private static func malformed(name: String) -> Malformed { Malformed("CO-RE relocation: \(name) has no such enumerator") }

    /// "task_struct.pid", for messages.
    func description(_ types: BTF) -> String {
        var text = (try? types.name(root)) ?? ""
        for (place, step) in steps.enumerated() {
            if let name = step.name { text += ".\(name)" } else if place > 0 || step.index != 0 { text += "[\(step.index)]" }
        }
        return text.isEmpty ? "a nameless type" : text
    }

    /// Without "___flavour".
    static func essential(_ name: String) -> Substring {
        let bytes = Array(name.utf8)
        guard bytes.count >= 5 else { return name[...] }
        let bar = UInt8(ascii: "_")
        for i in stride(from: bytes.count - 5, through: 0, by: -1)
        where bytes[i] != bar && bytes[i + 1] == bar && bytes[i + 2] == bar && bytes[i + 3] == bar && bytes[i + 4] != bar {
            return Substring(name.utf8.prefix(i + 1))
        }
        return name[...]
    }
}
