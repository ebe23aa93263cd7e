/// Whether what an object knows of a type fits what the kernel has: the three notions of libbpf, from loose to strict.
struct CoreMatch {
    let local: BTF
    let target: BTF

    private static func isAlike(_ a: BTF.TypeRecord, _ b: BTF.TypeRecord) -> Bool {
        a.kind == b.kind || a.isEnumeration && b.isEnumeration
    }

    private static func hasSameName(_ a: String, _ b: String) -> Bool {
        b.isEmpty ? a.isEmpty : CorePath.essential(a) == CorePath.essential(b)
    }

    /// The target's path for a local one; nil: the target has nothing of the kind.
    func path(_ path: CorePath, _ kind: CoreKind, in candidate: UInt32) throws(Malformed) -> CorePath? {
        var found = CorePath(root: candidate)
        if kind.isType {
            let fits = kind == .typeMatches ? try matches(path.root, candidate) : try isCompatible(path.root, candidate)
            return fits ? found : nil
        }
        if kind.isEnumerator {
            let id = try target.strippedID(candidate), type = try target.type(id)
            guard type.isEnumeration, let name = path.steps.first?.name else { return nil }
            for (index, enumerator) in type.enumerators.enumerated() where CorePath.essential(enumerator.name) == CorePath.essential(name) {
                found.steps.append(CorePath.Step(type: id, index: index, name: enumerator.name))
                return found
            }
            return nil
        }
        var id = candidate
        for (place, step) in path.steps.enumerated() {
            id = try target.strippedID(id)
            if step.name != nil {
                guard let next = try member(step, of: id, &found) else { return nil }
                id = next
                continue
            }
            if place > 0 {
                let type = try target.type(id)
                guard type.kind == .array else { return nil }
                let isFlexible = try CorePath.isFlexible(type, behind: found.steps.last, target)
                guard isFlexible || step.index < type.elementCount else { return nil }
                id = try target.strippedID(type.elementType)
            }
            guard found.depth < CorePath.depthMax else { throw Malformed("CO-RE relocation nests too deep") }
            found.steps.append(CorePath.Step(type: id, index: step.index, name: nil))
            found.depth += 1
            found.bitOffset &+= CorePath.bits(step.index, try target.size(id))
        }
        return found
    }

    /// The member of `id` with a step's name, also inside of nameless members.
    /// - Returns: its type.
    private func member(_ step: CorePath.Step, of id: UInt32, _ found: inout CorePath) throws(Malformed) -> UInt32? {
        let id = try target.strippedID(id), type = try target.type(id)
        guard type.isComposite else { return nil }
        let member = try local.type(step.type).members[step.index]
        for (index, candidate) in type.members.enumerated() {
            guard found.depth < CorePath.depthMax else { throw Malformed("CO-RE relocation nests too deep") }
            found.bitOffset &+= candidate.offset
            found.depth += 1
            if candidate.name.isEmpty {
                if let next = try self.member(step, of: candidate.type, &found) { return next }
            } else if candidate.name == member.name {
                guard try isReadable(member.type, candidate.type) else { return nil }
                found.steps.append(CorePath.Step(type: id, index: index, name: candidate.name))
                return candidate.type
            }
            found.bitOffset &-= candidate.offset
            found.depth -= 1
        }
        return nil
    }

    /// Fields that may stand for each other.
    private func isReadable(_ a: UInt32, _ b: UInt32) throws(Malformed) -> Bool {
        var (a, b) = (a, b)
        for _ in 0..<32 {
            let x = try local.stripped(a), y = try target.stripped(b)
            if x.isComposite && y.isComposite { return true }
            guard CoreMatch.isAlike(x, y) else { return false }
            switch x.kind {
            case .pointer, .float: return true
            case .forward, .enumeration, .enumeration64:
                let (first, second) = (CorePath.essential(x.name), CorePath.essential(y.name))
                return first.isEmpty || second.isEmpty || first == second
            case .int: return x.integerOffset == 0 && y.integerOffset == 0
            case .array: (a, b) = (x.elementType, y.elementType)
            default: return false
            }
        }
        throw Malformed("CO-RE relocation: an array never ends")
    }

    /// Types of the same kind all the way down; members do not count.
    func isCompatible(_ a: UInt32, _ b: UInt32, depth: Int = 32) throws(Malformed) -> Bool {
        guard CoreMatch.isAlike(try local.type(a), try target.type(b)) else { return false }
        var (a, b, depth) = (a, b, depth)
        while depth > 0 {
            depth -= 1
            let x = try local.stripped(a), y = try target.stripped(b)
            guard CoreMatch.isAlike(x, y) else { return false }
            switch x.kind {
            case .void, .structure, .union, .enumeration, .forward, .enumeration64: return true
            case .int: return x.integerOffset == 0 && y.integerOffset == 0
            case .pointer: (a, b) = (x.sizeOrType, y.sizeOrType)
            case .array: (a, b) = (x.elementType, y.elementType)
            case .functionPrototype:
                guard x.members.count == y.members.count else { return false }
                for (p, q) in zip(x.members, y.members) {
                    guard try isCompatible(try local.strippedID(p.type), try target.strippedID(q.type), depth: depth) else { return false }
                }
                (a, b) = (x.sizeOrType, y.sizeOrType)
            default: return false
            }
        }
        throw Malformed("CO-RE relocation: a type never ends")
    }

    /// Types with the same names and sizes all the way down, up to pointers.
    func matches(_ a: UInt32, _ b: UInt32, behindPointer: Bool = false, depth: Int = 32) throws(Malformed) -> Bool {
        var (a, b, behindPointer, depth) = (a, b, behindPointer, depth)
        while depth > 0 {
            depth -= 1
            let x = try local.stripped(a), y = try target.stripped(b)
            guard CoreMatch.hasSameName(x.kind == .void ? "" : x.name, y.kind == .void ? "" : y.name) else { return false }
            switch x.kind {
            case .void: return y.kind == .void
            case .forward:
                if y.kind == .forward { return x.isFlagged == y.isFlagged }
                return behindPointer && (y.kind == .structure && !x.isFlagged || y.kind == .union && x.isFlagged)
            case .enumeration, .enumeration64: return y.isEnumeration && CoreMatch.enumerationsMatch(x, y)
            case .structure, .union:
                if !behindPointer { return x.kind == y.kind ? try membersMatch(x, y, depth) : false }
                return x.kind == y.kind || y.kind == .forward && (x.kind == .union) == y.isFlagged
            case .int: return y.kind == .int && x.sizeOrType == y.sizeOrType && x.isSignedInteger == y.isSignedInteger
            case .pointer:
                guard y.kind == .pointer else { return false }
                behindPointer = true
                (a, b) = (x.sizeOrType, y.sizeOrType)
            case .array:
                guard y.kind == .array, x.elementCount == y.elementCount else { return false }
                (a, b) = (x.elementType, y.elementType)
            case .functionPrototype:
                guard y.kind == .functionPrototype, x.members.count == y.members.count else { return false }
                for (p, q) in zip(x.members, y.members) {
                    guard try matches(p.type, q.type, behindPointer: behindPointer, depth: depth) else { return false }
                }
                (a, b) = (x.sizeOrType, y.sizeOrType)
            default: return false
            }
        }
        throw Malformed("CO-RE relocation: a type never ends")
    }

    private static func enumerationsMatch(_ x: BTF.TypeRecord, _ y: BTF.TypeRecord) -> Bool {
        x.sizeOrType == y.sizeOrType && x.enumerators.count <= y.enumerators.count
            && x.enumerators.allSatisfy { mine in y.enumerators.contains { hasSameName(mine.name, $0.name) } }
    }

    private func membersMatch(_ x: BTF.TypeRecord, _ y: BTF.TypeRecord, _ depth: Int) throws(Malformed) -> Bool {
        guard x.members.count <= y.members.count else { return false }
        for member in x.members {
            var isFound = false
            for candidate in y.members where CoreMatch.hasSameName(member.name, candidate.name) {
                if try matches(member.type, candidate.type, depth: depth) {
                    isFound = true
                    break
                }
            }
            if !isFound { return false }
        }
        return true
    }
}
