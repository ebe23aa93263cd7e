/// Answers an object's CO-RE relocations from the types of the kernel it is to run on, and writes the answers into
/// instructions: as libbpf does, so that its output can be held against ours.
final class CoreResolver {
    /// What becomes of an instruction.
    struct Answer: Equatable {
        /// What the compiler put into the instruction, and what belongs there.
        var expected: UInt64 = 0
        var value: UInt64 = 0
        /// Bytes a load or store takes, where the field has another size in the kernel.
        var expectedSize: UInt32 = 0
        var size: UInt32 = 0
        var isChecked = true
        /// The kernel has no such thing: the instruction must not be reached.
        var isAbsent = false
        /// A load or store of this size would read something else.
        var cannotResize = false
    }

    /// `invalid func unknown#195896080` is what the kernel says if one is reached.
    static let poison: Int32 = 195_896_080

    private let local: BTF
    private let target: BTF
    /// By local type: what the kernel calls by the same name. It narrows as relocations find what fits.
    private var candidates: [UInt32: [UInt32]] = [:]

    init(local: BTF, target: BTF) {
        self.local = local
        self.target = target
    }

    /// The type and member it is about, and what it asks.
    func description(_ record: BTFExtension.CoreRecord) -> String {
        guard let kind = CoreKind(rawValue: record.kind) else { return "CO-RE relocation of unknown kind \(record.kind)" }
        let what = (try? CorePath(record, kind, in: local))?.description(local) ?? "nothing"
        return "CO-RE relocation for the \(kind.question) of \(what)"
    }

    func answer(_ record: BTFExtension.CoreRecord) throws(Malformed) -> Answer {
        guard let kind = CoreKind(rawValue: record.kind) else { throw Malformed("CO-RE relocation of unknown kind \(record.kind)") }
        let path = try CorePath(record, kind, in: local)
        if kind == .localTypeID {
            return Answer(expected: UInt64(record.type), value: UInt64(record.type), isChecked: false)
        }
        guard !(try local.name(record.type)).isEmpty else { throw Malformed("\(description(record)): a type without a name") }
        let match = CoreMatch(local: local, target: target)
        var answer: Answer?, first: CorePath?, fitting: [UInt32] = []
        let all = try find(record.type)
        for candidate in all {
            guard let found = try match.path(path, kind, in: candidate) else { continue }
            let one = try self.answer(kind, path, found)
            if let answer, let first {
                guard first.bitOffset == found.bitOffset, answer.isAbsent == one.isAbsent, answer.value == one.value else {
                    throw Malformed("\(description(record)): the kernel has several types of this name, which differ in it")
                }
            } else {
                (answer, first) = (one, found)
            }
            fitting.append(candidate)
        }
        if !fitting.isEmpty { candidates[record.type] = fitting }
        if let answer { return answer }
        return try self.answer(kind, path, nil)
    }

    private func find(_ type: UInt32) throws(Malformed) -> [UInt32] {
        if let known = candidates[type] { return known }
        let name = CorePath.essential(try local.name(type)), kind = try local.kind(type)
        func isEnumeration(_ kind: BTF.Kind) -> Bool { kind == .enumeration || kind == .enumeration64 }
        var found: [UInt32] = []
        for id in try target.types(prefixed: Array(name.utf8)) {
            let other = try target.kind(id)
            guard other == kind || isEnumeration(other) && isEnumeration(kind), CorePath.essential(try target.name(id)) == name else { continue }
            found.append(id)
        }
        candidates[type] = found
        return found
    }

    // MARK: Values

    private func answer(_ kind: CoreKind, _ path: CorePath, _ found: CorePath?) throws(Malformed) -> Answer {
        var answer = Answer()
        if kind.isField {
            let mine = try field(kind, path, local)
            answer.expected = mine.value
            answer.isChecked = mine.isChecked
            guard let found else {
                answer.isAbsent = kind != .exists
                return answer
            }
            let theirs = try field(kind, found, target)
            answer.value = theirs.value
            (answer.expectedSize, answer.size) = (mine.size, theirs.size)
            if mine.size != theirs.size {
                let a = try local.type(mine.type), b = try target.type(theirs.type)
                let arePointers = a.kind == .pointer && b.kind == .pointer
                let areUnsigned = a.kind == .int && b.kind == .int && a.detail >> 24 & 0xf != 1 && b.detail >> 24 & 0xf != 1
                answer.cannotResize = !arePointers && !areUnsigned
            }
        } else if kind.isEnumerator {
            answer.expected = enumerator(kind, path, local)
            answer.value = found.map { enumerator(kind, $0, target) } ?? 0
            answer.isAbsent = found == nil && kind == .enumeratorValue
        } else {
            answer.isChecked = kind != .typeID
            answer.expected = try type(kind, path.root, local)
            answer.value = try found.map { found throws(Malformed) in try type(kind, found.root, target) } ?? 0
        }
        return answer
    }

    private func type(_ kind: CoreKind, _ id: UInt32, _ types: BTF) throws(Malformed) -> UInt64 {
        switch kind {
        case .typeID: UInt64(id)
        case .typeSize: UInt64(try types.size(id))
        default: 1
        }
    }

    private func enumerator(_ kind: CoreKind, _ path: CorePath, _ types: BTF) -> UInt64 {
        guard kind == .enumeratorValue else { return 1 }
        guard let step = path.steps.first, let type = try? types.type(step.type) else { return 0 }
        return type.enumerators[step.index].value
    }

    private func field(_ kind: CoreKind, _ path: CorePath, _ types: BTF) throws(Malformed) -> (value: UInt64, size: UInt32, type: UInt32, isChecked: Bool) {
        if kind == .exists { return (1, 0, 0, true) }
        guard let step = path.steps.last else { return (0, 0, 0, true) }
        guard step.name != nil else {
            let size = try types.size(step.type)
            switch kind {
            case .byteOffset: return (UInt64(path.bitOffset / 8), size, step.type, true)
            case .byteSize: return (UInt64(size), 0, 0, true)
            default: throw Malformed("CO-RE relocation for the \(kind.question) of an array's element")
            }
        }
        let member = try types.type(step.type).members[step.index]
        let id = try types.strippedID(member.type), type = try types.type(id)
        let isBitfield = member.size > 0
        var bits = member.size, bytes: UInt32, offset: UInt32
        if isBitfield {
            bytes = type.sizeOrType
            guard bytes > 0 else { throw Malformed("CO-RE relocation: a bitfield of no size") }
            offset = path.bitOffset / 8 / bytes * bytes
            // The smallest integer that holds all of it.
            while path.bitOffset &+ bits &- offset &* 8 > bytes &* 8 {
                guard bytes < 8 else { throw Malformed("CO-RE relocation: a bitfield that no 64-bit load holds") }
                bytes *= 2
                offset = path.bitOffset / 8 / bytes * bytes
            }
        } else {
            bytes = try types.size(id)
            offset = path.bitOffset / 8
            bits = bytes &* 8
        }
        switch kind {
        case .byteOffset: return (UInt64(offset), isBitfield ? 0 : bytes, isBitfield ? 0 : id, !isBitfield)
        case .byteSize: return (UInt64(bytes), 0, 0, !isBitfield)
        case .isSigned: return ((type.isEnumeration && type.isFlagged || type.isSignedInteger) ? 1 : 0, 0, 0, true)
        case .leftShift: return (UInt64(64 &- (path.bitOffset &+ bits &- offset &* 8)), 0, 0, !isBitfield)
        default: return (UInt64(64 &- bits), 0, 0, true)
        }
    }

    // MARK: Instructions

    /// Writes an answer into the instruction at `at`.
    static func patch(_ code: inout [Instruction], at: Int, _ answer: Answer) throws(Malformed) {
        if answer.isAbsent { return poison(&code, at) }
        let instruction = code[at]
        switch instruction.instructionClass {
        case 4, 7:
            guard instruction.opcode & 0x08 == 0 else { throw Malformed("a CO-RE relocation of an instruction without a constant") }
            try check(answer, UInt64(bitPattern: Int64(instruction.immediate)))
            code[at].immediate = Int32(truncatingIfNeeded: answer.value)
        case 1, 2, 3:
            try check(answer, UInt64(bitPattern: Int64(instruction.offset)))
            guard answer.value <= UInt64(Int16.max) else { throw Malformed("CO-RE: the field's offset of \(answer.value) does not fit an instruction") }
            if answer.cannotResize { return poison(&code, at) }
            code[at].offset = Int16(answer.value)
            if answer.size != answer.expectedSize { try resize(&code[at], answer) }
        case 0:
            guard instruction.isLoadImmediate64, instruction.source == 0, instruction.offset == 0, at + 1 < code.count,
                  code[at + 1].opcode == 0, code[at + 1].registers == 0, code[at + 1].offset == 0 else {
                throw Malformed("a CO-RE relocation of a load that is none")
            }
            try check(answer, UInt64(UInt32(bitPattern: instruction.immediate)) | UInt64(bitPattern: Int64(code[at + 1].immediate)) << 32)
            code[at].immediate = Int32(truncatingIfNeeded: answer.value)
            code[at + 1].immediate = Int32(truncatingIfNeeded: answer.value >> 32)
        default: throw Malformed("a CO-RE relocation of an instruction that holds no number")
        }
    }

    private static func poison(_ code: inout [Instruction], _ at: Int) {
        if code[at].isLoadImmediate64 && at + 1 < code.count { code[at + 1] = Instruction(opcode: 0x85, immediate: poison) }
        code[at] = Instruction(opcode: 0x85, immediate: poison)
    }

    private static func check(_ answer: Answer, _ found: UInt64) throws(Malformed) {
        guard !answer.isChecked || found == answer.expected else {
            throw Malformed("a CO-RE relocation that expects \(answer.expected) in an instruction that holds \(Int64(bitPattern: found))")
        }
    }

    private static func resize(_ instruction: inout Instruction, _ answer: Answer) throws(Malformed) {
        let sizes: [UInt8: UInt32] = [0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8]
        guard sizes[instruction.opcode & 0x18] == answer.expectedSize, let size = sizes.first(where: { $0.value == answer.size }) else {
            throw Malformed("CO-RE: a field of \(answer.size) bytes cannot be reached by an instruction for \(answer.expectedSize)")
        }
        instruction.opcode = instruction.opcode & ~0x18 | size.key
    }
}
