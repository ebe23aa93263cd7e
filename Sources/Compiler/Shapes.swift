import EBPF

/// What a register holds as far as the translation can use it, in all runs.
enum Shape: Equatable {
    /// No run comes here.
    case none
    case constant(UInt64)
    /// Bytes from the top of the function's own frame.
    case frame(Int64)
    /// Anything that is not the context and no part of it.
    case other
    /// The context, possibly: loads from there are no loads.
    case any

    func joined(_ other: Shape) -> Shape {
        if self == other || other == .none { return self }
        if self == .none { return other }
        return self == .any || other == .any ? .any : .other
    }

    var mayBeContext: Bool { self == .any }
    var isFrame: Bool { if case .frame = self { true } else { false } }
}

/// Shapes at each instruction of one function: flow-sensitive over registers, and over frame slots of eight bytes.
struct Shapes {
    struct State: Equatable {
        var registers = [Shape](repeating: .other, count: 12)
        /// Offsets from the frame's top, multiples of 8; what is missing is `other`, or `any` where the context got away.
        var slots: [Int64: Shape] = [:]
    }

    private(set) var before: [Int: State] = [:]
    /// How much of the frame, from its top down, the function can know of without arithmetic we cannot follow.
    private(set) var frameBytes = 0
    /// The context was stored where it cannot be followed.
    private var isContextLost: Bool
    /// It may have been stored, be it in the function's own frame, of which others may be given the address.
    private(set) var storesContext = false

    /// - Parameters:
    ///   - isMain: r1 is the context; a subprogram's arguments may be anything.
    ///   - isContextLost: another function may have stored the context where this one finds it.
    init(_ code: [DecodedInstruction], _ flow: FunctionFlow, isMain: Bool, isContextLost: Bool) {
        self.isContextLost = isContextLost
        var start = State()
        for register in 1...5 { start.registers[register] = isMain && register > 1 ? .other : .any }
        start.registers[10] = .frame(0)
        while true {
            let wasLost = isContextLost
            run(code, flow, start)
            if isContextLost == wasLost { return }
        }
    }

    private mutating func run(_ code: [DecodedInstruction], _ flow: FunctionFlow, _ start: State) {
        before = [:]
        var entry: [Int: State] = [flow.entry: start]
        var pending = [flow.entry]
        while let block = pending.popLast() {
            guard var state = entry[block], let end = flow.blocks[block]?.end else { continue }
            var at = block
            while at < end {
                before[at] = state
                noteFrame(code[at], state)
                step(code[at], &state)
                at += code[at].slots
            }
            for next in flow.blocks[block]?.successors ?? [] {
                let merged = entry[next].map { merge($0, state) } ?? state
                if merged != entry[next] {
                    entry[next] = merged
                    pending.append(next)
                }
            }
        }
    }

    private func merge(_ a: State, _ b: State) -> State {
        var result = a
        for register in a.registers.indices { result.registers[register] = a.registers[register].joined(b.registers[register]) }
        result.slots = a.slots.reduce(into: [:]) { slots, item in
            if let theirs = b.slots[item.key] { slots[item.key] = item.value.joined(theirs) }
        }
        // A slot one side knows nothing of may hold the context only if that got away.
        for slot in Set(a.slots.keys).symmetricDifference(b.slots.keys) where (a.slots[slot] ?? b.slots[slot]) == .any { result.slots[slot] = .any }
        return result
    }

    private mutating func noteFrame(_ i: DecodedInstruction, _ state: State) {
        for case .frame(let at) in state.registers { frameBytes = max(frameBytes, Int(min(512, max(0, -at)))) }
        if case .frame(let at) = state.registers[Int(i.operation.isLoad ? i.source : i.destination)], i.operation.isMemory {
            frameBytes = max(frameBytes, Int(min(512, max(0, -at - Int64(i.offset)))))
        } else if i.operation.isArithmetic, i.operation != .mov64, i.source != DecodedInstruction.immediateRegister || i.operation != .add64 && i.operation != .sub64,
                  operand(i, state).isFrame || !i.operation.isMove && state.registers[Int(i.destination)].isFrame {
            frameBytes = 512
        }
    }

    private func operand(_ i: DecodedInstruction, _ state: State) -> Shape {
        i.source == DecodedInstruction.immediateRegister ? .constant(i.immediate) : state.registers[Int(i.source)]
    }

    private mutating func step(_ i: DecodedInstruction, _ state: inout State) {
        let d = Int(i.destination)
        switch i.operation {
        case .mov64: state.registers[d] = operand(i, state)
        case .loadImmediate64: state.registers[d] = .constant(i.immediate)
        case .functionAddress: state.registers[d] = .other
        case .mov32:
            if case .constant(let value) = operand(i, state) { state.registers[d] = .constant(value & 0xffff_ffff) }
            else { state.registers[d] = operand(i, state).mayBeContext ? .any : .other }
        case .add64, .sub64:
            let sign: Int64 = i.operation == .add64 ? 1 : -1
            switch (state.registers[d], operand(i, state)) {
            case (.frame(let at), .constant(let c)) where Int64(bitPattern: c).magnitude < 1 << 20: state.registers[d] = .frame(at + sign * Int64(bitPattern: c))
            case (.constant(let a), .constant(let c)): state.registers[d] = .constant(sign > 0 ? a &+ c : a &- c)
            case (let a, let b): state.registers[d] = a.mayBeContext || b.mayBeContext ? .any : .other
            }
        case .load64: state.registers[d] = loaded(i, state)
        case .load8, .load16, .load32, .loadSigned8, .loadSigned16, .loadSigned32: state.registers[d] = .other
        case .store8, .store16, .store32, .store64: stored(i, operand(i, state), &state)
        case _ where i.operation.isAtomic: atomic(i, &state)
        case _ where i.operation.isCall: called(i, &state)
        case _ where i.operation.isArithmetic:
            let mayBeContext = state.registers[d].mayBeContext || operand(i, state).mayBeContext
            state.registers[d] = mayBeContext ? .any : .other
        default: break
        }
    }

    private func loaded(_ i: DecodedInstruction, _ state: State) -> Shape {
        if case .frame(let at) = state.registers[Int(i.source)] {
            let slot = at + Int64(i.offset)
            if slot % 8 == 0, let known = state.slots[slot] { return known }
        }
        return isContextLost ? .any : .other
    }

    private mutating func stored(_ i: DecodedInstruction, _ value: Shape, _ state: inout State) {
        if value.mayBeContext { storesContext = true }
        guard case .frame(let at) = state.registers[Int(i.destination)] else {
            if value.mayBeContext { isContextLost = true }
            // It may be this frame, by an address that was passed around.
            state.slots = state.slots.mapValues { $0.mayBeContext || value.mayBeContext ? .any : .other }
            return
        }
        let slot = at + Int64(i.offset), size = i.operation.bytes
        for (known, shape) in state.slots where known < slot + Int64(size) && slot < known + 8 { state.slots[known] = shape.mayBeContext ? .any : .other }
        if size == 8 && slot % 8 == 0 { state.slots[slot] = value } else if value.mayBeContext { isContextLost = true }
    }

    private mutating func atomic(_ i: DecodedInstruction, _ state: inout State) {
        if state.registers[Int(i.source)].mayBeContext { (isContextLost, storesContext) = (true, true) }
        state.slots = state.slots.mapValues { $0.mayBeContext ? .any : .other }
        let result: Shape = isContextLost ? .any : .other
        if i.operation == .compareExchange32 || i.operation == .compareExchange64 { state.registers[0] = result }
        else if i.operation.isFetch { state.registers[Int(i.source)] = result }
    }

    private mutating func called(_ i: DecodedInstruction, _ state: inout State) {
        // Callees and helpers may write to this frame, and store what they are given.
        state.slots = state.slots.mapValues { $0.mayBeContext ? .any : .other }
        if i.operation == .callLocal || i.operation == .loop || i.operation == .forEach {
            // A callee may store what it is given, or what it finds in this frame.
            if (1...5).contains(where: { state.registers[$0].mayBeContext }) || state.slots.values.contains(where: \.mayBeContext) { isContextLost = true }
        }
        state.registers[0] = isContextLost && i.operation == .callLocal ? .any : .other
    }
}
