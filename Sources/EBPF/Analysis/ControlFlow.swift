/// A program's blocks, and for each branch the blocks its outcome decides about: those between it and its arms' common
/// post-dominator (Cooper, Harvey and Kennedy's algorithm, per function).
struct ControlFlow {
    /// First instructions of blocks, ascending.
    let leaders: [Int]
    let isLeader: [Bool]
    private let successors: [Int: [Int]]            // by leader, within the function
    private let postDominator: [Int: Int]           // by leader; missing: the function's end
    private let terminators: [Int: Int]             // leader -> last instruction
    private let live: [Int: UInt16]                 // by leader: registers somebody still reads, a bit each

    init(_ code: [Instruction]) {
        var isLeader = [Bool](repeating: false, count: code.count + 1)
        var entries: Set<Int> = [0]
        if !code.isEmpty { isLeader[0] = true }
        func mark(_ at: Int) { if code.indices.contains(at) { isLeader[at] = true } }
        var at = 0
        while at < code.count {
            let i = code[at]
            if i.isLoadImmediate64 {
                if i.source == PseudoSource.function {
                    mark(at + 1 + Int(i.immediate))
                    entries.insert(at + 1 + Int(i.immediate))
                }
                at += 2
                continue
            }
            if let target = ControlFlow.target(i, at) { mark(target) }
            if i.isLocalCall {
                mark(at + 1 + Int(i.immediate))
                entries.insert(at + 1 + Int(i.immediate))
            }
            if i.instructionClass == 5 || i.instructionClass == 6 { mark(at + 1) }
            at += 1
        }
        let leaders = code.indices.filter { isLeader[$0] }
        var successors: [Int: [Int]] = [:], terminators: [Int: Int] = [:]
        for (index, leader) in leaders.enumerated() {
            let next = index + 1 < leaders.count ? leaders[index + 1] : code.count
            var last = leader
            var at = leader
            while at < next {
                last = at
                at += code[at].isLoadImmediate64 ? 2 : 1
            }
            terminators[leader] = last
            successors[leader] = ControlFlow.next(code[last], last).filter { code.indices.contains($0) }
        }
        self.leaders = leaders
        self.isLeader = isLeader
        self.successors = successors
        self.terminators = terminators
        var dominators: [Int: Int] = [:]
        for entry in entries where code.indices.contains(entry) {
            dominators.merge(ControlFlow.postDominators(from: entry, successors)) { $1 }
        }
        postDominator = dominators
        live = ControlFlow.liveness(code, leaders, successors, terminators)
    }

    /// Where a jump goes; nil: it is none.
    static func target(_ i: Instruction, _ at: Int) -> Int? {
        guard i.instructionClass == 5 || i.instructionClass == 6 else { return nil }
        switch i.opcode >> 4 {
        case 0x8, 0x9: return nil
        case 0x0 where i.instructionClass == 6: return at + 1 + Int(i.immediate)
        default: return at + 1 + Int(i.offset)
        }
    }

    static func next(_ i: Instruction, _ at: Int) -> [Int] {
        if i.isLoadImmediate64 { return [at + 2] }
        if i.opcode == 0x95 { return [] }
        guard let target = target(i, at) else { return [at + 1] }
        return i.opcode >> 4 == 0 ? [target] : [target, at + 1]
    }

    func isLive(_ register: Int, at leader: Int) -> Bool { live[leader, default: .max] >> UInt16(register) & 1 != 0 }

    private static func liveness(_ code: [Instruction], _ leaders: [Int], _ successors: [Int: [Int]], _ terminators: [Int: Int]) -> [Int: UInt16] {
        var live: [Int: UInt16] = [:]
        var isStable = false
        while !isStable {
            isStable = true
            for leader in leaders.reversed() {
                var mask: UInt16 = (successors[leader] ?? []).reduce(1 << 10) { $0 | live[$1, default: 0] }
                var body: [Int] = [], at = leader
                while at <= terminators[leader] ?? leader {
                    body.append(at)
                    at += code[at].isLoadImmediate64 ? 2 : 1
                }
                for at in body.reversed() {
                    let (reads, writes) = registers(code[at])
                    mask = mask & ~writes | reads
                }
                if live[leader] != mask {
                    live[leader] = mask
                    isStable = false
                }
            }
        }
        return live
    }

    /// Registers an instruction reads and writes.
    private static func registers(_ i: Instruction) -> (reads: UInt16, writes: UInt16) {
        let d: UInt16 = 1 << UInt16(min(i.destination, 11)), s: UInt16 = 1 << UInt16(min(i.source, 11)), isRegister = i.opcode & 8 != 0
        switch i.instructionClass {
        case 0: return (0, d)
        case 1: return (s, d)
        case 2: return (d, 0)
        case 3: return (d | s | 1, 0)       // atomics may read r0; what they write they read
        case 4, 7: return ((i.opcode >> 4 == 0xb ? 0 : d) | (isRegister ? s : 0), d)
        default:
            // Registers a callee is not given are still there, for code nobody verified.
            if i.isCall { return (0x3ff, 0) }
            if i.opcode >> 4 == 0x9 { return (0x3f, 0) }
            return i.opcode >> 4 == 0 ? (0, 0) : (d | (isRegister ? s : 0), 0)
        }
    }

    func terminator(_ leader: Int) -> Int { terminators[leader] ?? leader }

    /// Blocks whose execution, or whose number of executions, the branch at the end of `leader` decides.
    func region(of leader: Int) -> [Int] {
        let end = postDominator[leader]
        var seen: Set<Int> = [], pending = successors[leader] ?? []
        while let block = pending.popLast() {
            guard block != end, seen.insert(block).inserted else { continue }
            pending += successors[block] ?? []
        }
        return Array(seen)
    }

    private static func postDominators(from entry: Int, _ successors: [Int: [Int]]) -> [Int: Int] {
        // Depth first, with a stack of its own: programs may be long.
        var order: [Int] = [], seen: Set<Int> = [entry]
        var stack: [(block: Int, next: Int)] = [(entry, 0)]
        var predecessors: [Int: [Int]] = [:]
        while let (block, next) = stack.last {
            let following = successors[block] ?? []
            guard next < following.count else {
                order.append(block)
                stack.removeLast()
                continue
            }
            stack[stack.count - 1].next += 1
            predecessors[following[next], default: []].append(block)
            if seen.insert(following[next]).inserted { stack.append((following[next], 0)) }
        }
        // The reversed graph from the virtual end, numbered in its own post-order.
        let ends = order.filter { (successors[$0] ?? []).isEmpty }
        var number: [Int: Int] = [:], reversed: [Int] = []
        var visited: Set<Int> = []
        for end in ends where visited.insert(end).inserted {
            var stack: [(block: Int, next: Int)] = [(end, 0)]
            while let (block, next) = stack.last {
                let following = predecessors[block] ?? []
                guard next < following.count else {
                    reversed.append(block)
                    stack.removeLast()
                    continue
                }
                stack[stack.count - 1].next += 1
                if visited.insert(following[next]).inserted { stack.append((following[next], 0)) }
            }
        }
        for (index, block) in reversed.enumerated() { number[block] = index }
        let exit = Int.max      // the virtual end has the highest number
        var dominator: [Int: Int] = [:]
        for end in ends { dominator[end] = exit }
        func intersect(_ a: Int, _ b: Int) -> Int {
            var (a, b) = (a, b)
            while a != b {
                if a == exit || b == exit { return exit }
                if number[a] ?? 0 < number[b] ?? 0 { a = dominator[a] ?? exit } else { b = dominator[b] ?? exit }
            }
            return a
        }
        var isStable = false
        while !isStable {
            isStable = true
            for block in reversed.reversed() where !(successors[block] ?? []).isEmpty {
                var new: Int?
                for next in successors[block] ?? [] where dominator[next] != nil { new = new.map { intersect($0, next) } ?? next }
                if let new, dominator[block] != new {
                    dominator[block] = new
                    isStable = false
                }
            }
        }
        return dominator.filter { $0.value != exit }
    }
}
