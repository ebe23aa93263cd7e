import EBPF

/// Basic blocks of one function of a program: what is reached from its entry without a call.
struct FunctionFlow {
    struct Block {
        /// One past the last instruction.
        let end: Int
        let successors: [Int]
    }

    let entry: Int
    private(set) var blocks: [Int: Block] = [:]
    /// Some block can be reached from itself.
    private(set) var hasLoop = false

    init(_ code: [DecodedInstruction], entry: Int) {
        self.entry = entry
        var leaders: Set<Int> = [entry], reached: Set<Int> = [], stack = [entry]
        while let at = stack.popLast() {
            guard reached.insert(at).inserted else { continue }
            let next = FunctionFlow.successors(code, at)
            if code[at].operation.isJump { leaders.formUnion(next) }
            stack += next
        }
        for leader in leaders {
            var at = leader
            while true {
                let next = FunctionFlow.successors(code, at)
                let behind = at + code[at].slots
                if code[at].operation.isJump || next.isEmpty || leaders.contains(behind) {
                    blocks[leader] = Block(end: behind, successors: next)
                    break
                }
                at = behind
            }
        }
        hasLoop = findLoop()
    }

    private static func successors(_ code: [DecodedInstruction], _ at: Int) -> [Int] {
        let i = code[at], target = at + 1 + Int(i.offset)
        switch i.operation {
        case .exit, .invalid: return []
        case .jump: return [target]
        case _ where i.operation.isJump: return target == at + 1 ? [target] : [at + 1, target]
        default: return [at + i.slots]
        }
    }

    private func findLoop() -> Bool {
        var state: [Int: Bool] = [:]        // true while it is on the way
        var stack: [(Int, Int)] = [(entry, 0)]
        state[entry] = true
        while let (block, index) = stack.last {
            let successors = blocks[block]?.successors ?? []
            guard index < successors.count else {
                state[block] = false
                stack.removeLast()
                continue
            }
            stack[stack.count - 1].1 += 1
            switch state[successors[index]] {
            case true: return true
            case false: continue
            default:
                state[successors[index]] = true
                stack.append((successors[index], 0))
            }
        }
        return false
    }
}

extension DecodedInstruction {
    /// A 64-bit load takes two.
    var slots: Int { operation == .loadImmediate64 || operation == .functionAddress ? 2 : 1 }
}

extension Operation {
    /// Conditional or not.
    var isJump: Bool {
        switch self {
        case .jump, .jeq64, .jgt64, .jge64, .jset64, .jne64, .jsgt64, .jsge64, .jlt64, .jle64, .jslt64, .jsle64,
             .jeq32, .jgt32, .jge32, .jset32, .jne32, .jsgt32, .jsge32, .jlt32, .jle32, .jslt32, .jsle32: true
        default: false
        }
    }

    var isLoad: Bool { rawValue >= Operation.load8.rawValue && rawValue <= Operation.loadSigned32.rawValue }
    /// Loads, stores, atomics.
    var isStore: Bool { rawValue >= Operation.store8.rawValue && rawValue <= Operation.store64.rawValue }
    var isMemory: Bool { rawValue >= Operation.load8.rawValue && rawValue <= Operation.compareExchange64.rawValue }
    var isArithmetic: Bool { rawValue >= Operation.add64.rawValue && rawValue <= Operation.swap64.rawValue }
    /// What the destination held is gone.
    var isMove: Bool { [.mov64, .mov32, .movsx8, .movsx16, .movsx32, .movsx8to32, .movsx16to32].contains(self) }
    var isAtomic: Bool { rawValue >= Operation.add32Atomic.rawValue && rawValue <= Operation.compareExchange64.rawValue }
    var isFetch: Bool {
        switch self {
        case .fetchAdd32, .fetchOr32, .fetchAnd32, .fetchXor32, .exchange32, .fetchAdd64, .fetchOr64, .fetchAnd64, .fetchXor64, .exchange64: true
        default: false
        }
    }
    /// A helper, a function of the program, or a tail call.
    var isCall: Bool {
        switch self {
        case .callLocal, .mapLookup, .mapUpdate, .mapDelete, .ktime, .random, .processor, .csumDiff, .adjustHead, .adjustTail, .adjustMeta,
             .bufferLength, .helper, .tailCall, .loop, .forEach: true
        default: false
        }
    }

    /// Of a memory access.
    var bytes: Int {
        switch self {
        case .load8, .loadSigned8, .store8: 1
        case .load16, .loadSigned16, .store16: 2
        case .load32, .loadSigned32, .store32: 4
        case .load64, .store64: 8
        default: rawValue <= Operation.compareExchange32.rawValue ? 4 : 8
        }
    }
}
