/// Whether a program can write to a packet at all, from its instructions alone: which registers may hold a pointer to
/// the packet, forward from the entry over all paths, a set of possibilities per register. Rests on the verifier:
/// pointers live in registers and in 8-byte stack slots, nothing else becomes one.
///
/// Sound before sharp: the stack is one set for all slots and frames, a subprogram has one entry state.
struct WriteScan {
    /// What a register may point to. Maps, their values and numbers are no bit.
    private enum Bits { static let context: UInt64 = 1, packet: UInt64 = 2, stack: UInt64 = 4, all: UInt64 = 7 }

    /// Four bits a register, r0 lowest: joining two states is an or.
    private typealias State = UInt64

    private let code: [DecodedInstruction]
    private var states: [State?]
    private var pending: [Int] = [0]
    private var spilled: UInt64 = 0                 // ever stored to a stack slot
    private var functionOf: [Int: Int] = [:]        // entry of the function an instruction belongs to
    private var returns: [Int: UInt64] = [:]        // r0 at a function's exits, by its entry
    private var callers: [Int: [Int]] = [:]         // calls, by the entry they go to

    static func canWrite(_ code: [DecodedInstruction]) -> Bool {
        var scan = WriteScan(code: code, states: .init(repeating: nil, count: code.count))
        scan.states[0] = Bits.context << 4 | Bits.stack << 40
        scan.functionOf[0] = 0
        while let at = scan.pending.popLast() {
            if scan.step(at) { return true }
        }
        return false
    }

    private init(code: [DecodedInstruction], states: [State?]) {
        self.code = code
        self.states = states
    }

    private static func get(_ state: State, _ register: UInt8) -> UInt64 {
        register <= 10 ? state >> (UInt64(register) * 4) & Bits.all : 0
    }

    private static func set(_ state: State, _ register: UInt8, _ bits: UInt64) -> State {
        let shift = UInt64(register) * 4
        return state & ~(0xf << shift) | bits << shift
    }

    private mutating func flow(_ state: State, to at: Int, in function: Int) {
        guard code.indices.contains(at) else { return }
        let joined = state | (states[at] ?? 0)
        if states[at] == joined && functionOf[at] != nil { return }
        states[at] = joined
        functionOf[at] = function
        pending.append(at)
    }

    /// Follows one instruction; true if it can write to the packet.
    private mutating func step(_ at: Int) -> Bool {
        guard var state = states[at], let function = functionOf[at] else { return false }
        let i = code[at]
        let d = i.destination, target = at + 1 + Int(i.offset)
        let base = WriteScan.get(state, d), source = WriteScan.get(state, i.source)
        var next = at + 1
        switch i.operation {
        case .invalid: return false
        case .exit:
            let r0 = WriteScan.get(state, 0) | (returns[function] ?? 0)
            if returns[function] != r0 {
                returns[function] = r0
                pending += callers[function] ?? []
            }
            return false
        case .jump:
            flow(state, to: target, in: function)
            return false
        case .jeq64, .jgt64, .jge64, .jset64, .jne64, .jsgt64, .jsge64, .jlt64, .jle64, .jslt64, .jsle64,
             .jeq32, .jgt32, .jge32, .jset32, .jne32, .jsgt32, .jsge32, .jlt32, .jle32, .jslt32, .jsle32:
            flow(state, to: target, in: function)
        case .callLocal:
            if callers[target]?.contains(at) != true { callers[target, default: []].append(at) }
            var entry: State = Bits.stack << 40
            for r in UInt8(1)...5 { entry = WriteScan.set(entry, r, WriteScan.get(state, r)) }
            flow(entry, to: target, in: target)
            guard let r0 = returns[target] else { return false }
            state = afterCall(state, r0)
        case .adjustHead, .adjustTail: return true
        case .helper, .tailCall, .loop, .forEach: return helper(i, &state, at, function)
        case .functionAddress:
            // Whatever a callback is given, it may be anything.
            flow(WriteScan.everything, to: target, in: target)
            state = WriteScan.set(state, d, 0)
            next += 1
        case .mapLookup, .mapUpdate, .mapDelete, .ktime, .random, .processor, .csumDiff, .adjustMeta, .bufferLength: state = afterCall(state, 0)
        case .store8, .store16, .store32, .store64, .add32Atomic, .or32Atomic, .and32Atomic, .xor32Atomic, .fetchAdd32, .fetchOr32,
             .fetchAnd32, .fetchXor32, .exchange32, .compareExchange32, .add64Atomic, .or64Atomic, .and64Atomic, .xor64Atomic,
             .fetchAdd64, .fetchOr64, .fetchAnd64, .fetchXor64, .exchange64, .compareExchange64:
            if base & Bits.packet != 0 { return true }
            spill(source)
            state = afterAtomic(i, state, base)
        case .load64: state = WriteScan.set(state, d, source & Bits.stack != 0 ? spilled : 0)
        case .load32: state = WriteScan.set(state, d, source & Bits.context != 0 ? Bits.packet : 0)
        case .load8, .load16, .loadSigned8, .loadSigned16, .loadSigned32: state = WriteScan.set(state, d, 0)
        case .loadImmediate64:
            state = WriteScan.set(state, d, 0)
            next += 1
        case .mov64, .mov32: state = WriteScan.set(state, d, source)
        default: state = WriteScan.set(state, d, base | source)     // the rest of the arithmetic
        }
        flow(state, to: next, in: function)
        return false
    }

    /// A callback's registers, and those of a program that anything may have called.
    private static var everything: State { (1...5).reduce(Bits.stack << 40) { WriteScan.set($0, $1, Bits.all) } }

    /// Helpers that may write to the packet, and what the others leave in r0.
    private mutating func helper(_ i: DecodedInstruction, _ state: inout State, _ at: Int, _ function: Int) -> Bool {
        // The program called is another one: it must be asked for itself, and this one cannot know which it is.
        if i.operation == .tailCall { return true }
        switch Helper(rawValue: UInt16(truncatingIfNeeded: i.immediate)) {
        case .storeBytes: return true
        // They fill memory they are given.
        case .mapPop, .mapPeek, .snprintf, .stringToLong, .stringToUnsigned, .checkMTU, .loadBytes:
            if (1...5).contains(where: { WriteScan.get(state, $0) & Bits.packet != 0 }) { return true }
        default: break
        }
        flow(afterCall(state, 0), to: at + 1, in: function)
        return false
    }

    /// A pointer of a new kind on the stack may be loaded anywhere: what was followed so far is followed again.
    private mutating func spill(_ bits: UInt64) {
        guard spilled | bits != spilled else { return }
        spilled |= bits
        for at in code.indices where states[at] != nil { pending.append(at) }
    }

    /// A fetching atomic loads what the stack slot held.
    private func afterAtomic(_ i: DecodedInstruction, _ state: State, _ base: UInt64) -> State {
        let old = base & Bits.stack != 0 ? spilled : 0
        return switch i.operation {
        case .compareExchange32, .compareExchange64: WriteScan.set(state, 0, old)
        case .fetchAdd32, .fetchOr32, .fetchAnd32, .fetchXor32, .exchange32, .fetchAdd64, .fetchOr64, .fetchAnd64, .fetchXor64,
             .exchange64: WriteScan.set(state, i.source, old)
        default: state
        }
    }

    private func afterCall(_ state: State, _ r0: UInt64) -> State {
        var state = WriteScan.set(state, 0, r0)
        for r in UInt8(1)...5 { state = WriteScan.set(state, r, 0) }
        return state
    }
}
