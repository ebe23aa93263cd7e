@testable import EBPF

/// What a program can end with at most: a walk over its linked instructions that shares nothing with the engine's analysis.
/// It follows constants, the packet's bounds and the context through registers and stack, and takes everything else for
/// unknown. So it may name a verdict that never comes, but leaves none out.
struct VerdictBound {
    /// What the kernel's test run never varies, and answers of helpers that follow from their arguments alone.
    /// `VerdictBoundTests` put each of them to the kernel.
    enum Fact: String, CaseIterable {
        case length = "no packet has less than 14 bytes"
        case device = "no device has number 0"
        case written = "the verifier follows no path that reads an address nobody wrote"
        case redirect = "bpf_redirect answers 4 where its flags are 0"
        case broadcast = "bpf_redirect_map answers 4 where its flags say broadcast"
    }

    /// Nil: anything, because an unknown value reaches an exit or a tail call leads elsewhere.
    var verdicts: Set<UInt32>? { isOpen ? nil : found }
    private var isOpen = false
    private var found: Set<UInt32> = []
    /// What the bound rests on.
    private(set) var facts: Set<Fact> = []
    /// Offsets in `struct xdp_md` that are read, and by which instructions the leaving device's number is.
    private(set) var contextReads: Set<Int> = []
    private(set) var egressReads: Set<Int> = []
    private(set) var helpers: Set<Int32> = []

    private let instructions: [Instruction]
    private let believesFacts: Bool
    /// Each path by itself, as long as there are not too many; or else states that meet are joined.
    private let followsPaths: Bool
    private var stepsLeft: Int
    private struct Call: Hashable { let entry: Int, arguments: [BoundValue] }
    private var returned: [Call: BoundValue?] = [:]

    /// - Parameter believesFacts: or else nothing but the instructions counts.
    init(_ instructions: [Instruction], believesFacts: Bool = true, followsPaths: Bool = false) {
        self.instructions = instructions
        self.believesFacts = believesFacts
        self.followsPaths = followsPaths
        stepsLeft = followsPaths ? 20_000 : 1_000_000
        var start = BoundState()
        start[1] = .context
        _ = run(from: 0, start, depth: 0)
    }

    /// The cheapest way that leaves one verdict; where none does, the facts and no single paths.
    static func of(_ program: LinkedProgram) -> VerdictBound {
        for (believesFacts, followsPaths) in [(false, false), (false, true), (true, false), (true, true)] {
            let bound = VerdictBound(program.instructions, believesFacts: believesFacts, followsPaths: followsPaths)
            if bound.verdicts?.count == 1 { return bound }
        }
        return VerdictBound(program.instructions)
    }

    private mutating func believe(_ fact: Fact) -> Bool {
        if believesFacts { facts.insert(fact) }
        return believesFacts
    }

    // MARK: Flow

    /// A function from its entry. What it returns, nil where no exit is reached.
    private mutating func run(from entry: Int, _ start: BoundState, depth: Int) -> BoundValue? {
        var states: [Int: Set<BoundState>] = [entry: [start]], waiting = [(entry, start)], result: BoundValue?
        while let (at, state) = waiting.popLast() {
            stepsLeft -= 1
            guard instructions.indices.contains(at), depth < 9, stepsLeft > 0 else {
                isOpen = true
                return .anything
            }
            for (next, state) in step(at, state, depth, &result) {
                let met = followsPaths ? nil : states[next]?.first
                let joined = met?.joined(state) ?? state
                if states[next]?.contains(joined) == true { continue }
                states[next] = followsPaths ? states[next, default: []].union([joined]) : [joined]
                waiting.append((next, joined))
            }
        }
        return result
    }

    private mutating func step(_ at: Int, _ before: BoundState, _ depth: Int, _ result: inout BoundValue?) -> [(Int, BoundState)] {
        let i = instructions[at]
        var state = before
        switch i.instructionClass {
        case 0x00 where i.isLoadImmediate64:
            let high = instructions.indices.contains(at + 1) ? instructions[at + 1].immediate : 0
            state[i.destination] = i.source == 0 ? .numbers([UInt64(UInt32(bitPattern: high)) << 32 | UInt64(UInt32(bitPattern: i.immediate))]) : .opaque
            return [(at + 2, state)]
        case 0x04, 0x07: state[i.destination] = BoundArithmetic.result(i, state[i.destination], state[i.source])
        case 0x01:
            if state[i.source] == .unwritten && believe(.written) { return [] }
            state[i.destination] = load(i, at, state)
        case 0x02, 0x03: store(i, &state)
        case 0x05, 0x06:
            switch i.opcode & 0xf0 {
            case 0x00: return [(at + 1 + (i.instructionClass == 0x05 ? Int(i.offset) : Int(i.immediate)), state)]
            case 0x80:
                guard call(i, at, &state, depth) else { return [] }
            case 0x90:
                let value = state[0]
                result = result.map { $0.joined(value) } ?? value
                guard depth == 0 else { return [] }
                if case .numbers(let all) = value { found.formUnion(all.map { UInt32(truncatingIfNeeded: $0) }) } else { isOpen = true }
                return []
            default: return branch(i, at, state)
            }
        default: isOpen = true
        }
        return [(at + 1, state)]
    }

    private mutating func branch(_ i: Instruction, _ at: Int, _ state: BoundState) -> [(Int, BoundState)] {
        let right = i.opcode & 8 != 0 ? state[i.source] : BoundArithmetic.immediate(i)
        let outcomes = BoundArithmetic.outcomes(i, state[i.destination], right)
        if let fact = outcomes.fact, !believe(fact) { return [(at + 1 + Int(i.offset), state), (at + 1, state)] }
        var next: [(Int, BoundState)] = []
        for (value, target) in [(outcomes.taken, at + 1 + Int(i.offset)), (outcomes.fallen, at + 1)] {
            guard let value else { continue }
            var state = state
            state[i.destination] = value
            next.append((target, state))
        }
        return next
    }

    // MARK: Memory

    private mutating func load(_ i: Instruction, _ at: Int, _ state: BoundState) -> BoundValue {
        let isWhole = i.opcode & 0x18 == Asm.double
        switch state[i.source] {
        case .context:
            contextReads.insert(Int(i.offset))
            if i.offset == 20 { egressReads.insert(at) }
            return i.offset == 0 ? .packet(0) : i.offset == 4 ? .packetEnd : i.offset == 12 ? .device : .opaque
        case .stack(let offset): return isWhole ? state.slots[offset + Int(i.offset)] ?? .anything : .opaque
        case .anything: return isWhole ? .anything : .opaque
        default: return .opaque
        }
    }

    private mutating func store(_ i: Instruction, _ state: inout BoundState) {
        let size = [Asm.word: 4, Asm.half: 2, Asm.byte: 1, Asm.double: 8][i.opcode & 0x18]!
        let isAtomic = i.instructionClass == 0x03 && i.opcode & 0xe0 == 0xc0
        switch state[i.destination] {
        case .stack(let offset):
            let place = offset + Int(i.offset)
            state.slots = state.slots.filter { $0.key + 8 <= place || $0.key >= place + size }
            if size == 8 && !isAtomic { state.slots[place] = i.instructionClass == 0x02 ? BoundArithmetic.immediate(i) : state[i.source] }
        case .anything: state.slots = [:]
        default: break
        }
        // Some of them fetch.
        if isAtomic {
            state[i.source] = .anything
            state[0] = .anything
        }
    }

    // MARK: Calls

    /// False: it never returns.
    private mutating func call(_ i: Instruction, _ at: Int, _ state: inout BoundState, _ depth: Int) -> Bool {
        let arguments = (1...5).map { state[UInt8($0)] }
        var answer: BoundValue? = .opaque
        switch i.source {
        case 0: answer = helper(i.immediate, arguments)
        case PseudoSource.call:
            let call = Call(entry: at + 1 + Int(i.immediate), arguments: arguments.map(\.abroad))
            if returned[call] == nil {
                var start = BoundState()
                for (number, argument) in call.arguments.enumerated() { start[UInt8(number + 1)] = argument }
                returned[call] = run(from: call.entry, start, depth: depth + 1)
            }
            answer = returned[call]!
        default: break
        }
        // What it was given an address of it may have written to, and everything above.
        for case .stack(let offset) in arguments { state.slots = state.slots.filter { $0.key + 8 <= offset } }
        let callsBack: Set<Int32> = [164, 181]               // bpf_for_each_map_elem, bpf_loop
        if i.source != 0 || callsBack.contains(i.immediate) || arguments.contains(.anything) { state.slots = [:] }
        for number in 1...5 { state.forget(UInt8(number)) }
        guard let answer else { return false }
        state[0] = answer.abroad
        return true
    }

    private mutating func helper(_ number: Int32, _ arguments: [BoundValue]) -> BoundValue {
        helpers.insert(number)
        switch number {
        case 12: isOpen = true                              // bpf_tail_call
        case 23:                                            // bpf_redirect
            guard case .numbers([0]) = arguments[1] else { return .numbers([0, 4]) }
            return believe(.redirect) ? .numbers([4]) : .opaque
        case 51:                                            // bpf_redirect_map
            guard case .numbers(let flags) = arguments[2] else { break }
            if flags.allSatisfy({ $0 & 8 != 0 && $0 < 32 }) && believe(.broadcast) { return .numbers([4]) }
            return .numbers(Set(flags.map { $0 & 3 }).union([0, 4]))
        default: break
        }
        return .opaque
    }
}
