/// Jumps, calls and exits.
extension AnalysisEngine {
    private enum Comparison { case equal, notEqual, above, atLeast, below, atMost, anyBit, noBit, signedAbove, signedAtLeast, signedBelow, signedAtMost

        init?(_ opcode: UInt8) {
            switch opcode >> 4 {
            case 0x1: self = .equal
            case 0x2: self = .above
            case 0x3: self = .atLeast
            case 0x4: self = .anyBit
            case 0x5: self = .notEqual
            case 0x6: self = .signedAbove
            case 0x7: self = .signedAtLeast
            case 0xa: self = .below
            case 0xb: self = .atMost
            case 0xc: self = .signedBelow
            case 0xd: self = .signedAtMost
            default: return nil
            }
        }

        var opposite: Comparison {
            switch self {
            case .equal: .notEqual
            case .notEqual: .equal
            case .above: .atMost
            case .atMost: .above
            case .atLeast: .below
            case .below: .atLeast
            case .anyBit: .noBit
            case .noBit: .anyBit
            case .signedAbove: .signedAtMost
            case .signedAtMost: .signedAbove
            case .signedAtLeast: .signedBelow
            case .signedBelow: .signedAtLeast
            }
        }

        /// With its operands the other way round.
        var mirrored: Comparison {
            switch self {
            case .above: .below
            case .below: .above
            case .atLeast: .atMost
            case .atMost: .atLeast
            case .signedAbove: .signedBelow
            case .signedBelow: .signedAbove
            case .signedAtLeast: .signedAtMost
            case .signedAtMost: .signedAtLeast
            default: self
            }
        }
    }

    func jump(_ i: Instruction, _ at: Int, _ state: inout AbstractState) -> Bool {
        switch i.opcode >> 4 {
        case 0x0:
            guard let target = ControlFlow.target(i, at) else { return false }
            flow(state, to: target, in: context, from: node)
            return false
        case 0x8:
            if i.isLocalCall {
                call(at + 1 + Int(i.immediate), at, state)
                return false
            }
            // The kernel has not what it asks for: a run ends here.
            if code.linked.absent[at] != nil || i.isHelperCall && i.immediate == CoreResolver.poison { return false }
            guard i.isHelperCall else { return kernelFunction(at, &state) }
            return helper(i.immediate, at, &state)
        case 0x9:
            leave(at, state)
            return false
        default:
            guard let comparison = Comparison(i.opcode) else {
                giveUp("an instruction that is none")
                return false
            }
            branch(i, comparison, at, state)
            return false
        }
    }

    private func call(_ target: Int, _ at: Int, _ state: AbstractState) {
        guard code.instructions.indices.contains(target), let callee = enter(callSite: at) else { return }
        var state = state
        state.call()
        flow(state, to: target, in: callee, from: node)
    }

    private func leave(_ at: Int, _ state: AbstractState) {
        guard let parent = contexts[context].parent else {
            return look(state.registers[0].tainted & 0x0f == 0 || AnalysisBug.has(.verdicts) ? 0 : state.registers[0].taint, at, "decides the verdict")
        }
        var state = state
        guard let arguments = state.leave() else { return giveUp("a return to nowhere") }
        if let callback = contexts[context].callback {
            look(AnalysisBug.has(.answers) ? 0 : state.registers[0].taint, at, "decides whether a helper calls again")
            var again = state
            again.call(back: arguments)
            if !AnalysisBug.has(.secondRounds) { flow(again, to: callback, in: context, from: node) }
            returned(.number, &state)
        }
        flow(state, to: contexts[context].callSite + 1, in: parent, from: node)
    }

    // MARK: Branches

    private func branch(_ i: Instruction, _ comparison: Comparison, _ at: Int, _ state: AbstractState) {
        let is64 = i.instructionClass == 5, isRegister = i.opcode & 8 != 0
        let a = operand(i.destination, state)
        let b = isRegister ? operand(i.source, state) : .constant(UInt64(bitPattern: Int64(i.immediate)))
        var arms: [(Comparison, target: Int)] = [(comparison, at + 1 + Int(i.offset)), (comparison.opposite, at + 1)]
        if a.isNumber && b.isNumber {
            let (x, y) = is64 ? (a.number, b.number) : (a.number.low32, b.number.low32)
            arms.removeAll { !isPossible($0.0, x, y, bits: is64 ? 64 : 32) }
        }
        if i.offset != 0 {
            let width: UInt8 = is64 ? 0xff : 0x0f
            let labels = (a.tainted & width == 0 ? 0 : a.taint) | (b.tainted & width == 0 ? 0 : b.taint)
            let targets = arms.reduce(UInt8(0)) { $0 | ($1.target == at + 1 ? 1 : 2) }
            decides(targets, isClosed(comparison, a, b) ? 0 : labels, at)
        }
        for (condition, target) in arms {
            var arm = state
            guard refine(&arm, i, condition, a, b, is64: is64, isRegister: isRegister) else { continue }
            flow(arm, to: target, in: context, from: node)
        }
    }

    /// A raw UDP field against zero: neither a seed nor a finished UDP checksum is zero (contract section 4).
    private func isClosed(_ comparison: Comparison, _ a: AbstractValue, _ b: AbstractValue) -> Bool {
        guard comparison == .equal || comparison == .notEqual || comparison == .above || comparison == .atMost, !AnalysisBug.has(.udpZeroLooks) else { return false }
        guard b.number.isZero, b.isNumber, a.isNumber else { return false }
        var seen: Set<Int16> = []
        for byte in 0..<8 where !a.number.isZero(byte: byte) { seen.insert(a.origins[byte]) }
        return seen == [Origin.udpFieldHigh, Origin.udpFieldLow]
    }

    private func isPossible(_ comparison: Comparison, _ a: Scalar, _ b: Scalar, bits: UInt64) -> Bool {
        switch comparison {
        case .equal:
            return a.limited(b.min...b.max) != nil && (a.value ^ b.value) & ~(a.mask | b.mask) == 0
        case .notEqual: return !(a.constant != nil && a.constant == b.constant)
        case .above: return a.max > b.min
        case .atLeast: return a.max >= b.min
        case .below: return a.min < b.max
        case .atMost: return a.min <= b.max
        case .anyBit: return a.ceilingBits & b.ceilingBits != 0
        case .noBit: return a.value & b.value == 0
        default:
            guard let x = signed(a, bits), let y = signed(b, bits) else { return true }
            switch comparison {
            case .signedAbove: return x.upperBound > y.lowerBound
            case .signedAtLeast: return x.upperBound >= y.lowerBound
            case .signedBelow: return x.lowerBound < y.upperBound
            default: return x.lowerBound <= y.upperBound
            }
        }
    }

    private func signed(_ a: Scalar, _ bits: UInt64) -> ClosedRange<Int64>? {
        if bits == 64 { return a.signed }
        let (low, high) = (Int64(Int32(truncatingIfNeeded: a.min)), Int64(Int32(truncatingIfNeeded: a.max)))
        return low <= high && a.max - a.min < 1 << 31 ? low...high : nil
    }

    // MARK: What an arm knows

    /// False: no run takes this arm.
    private func refine(_ state: inout AbstractState, _ i: Instruction, _ condition: Comparison, _ a: AbstractValue, _ b: AbstractValue,
                        is64: Bool, isRegister: Bool) -> Bool {
        if is64 && !a.isNumber || !b.isNumber {
            refinePointers(&state, i, condition, a, b)
            return true
        }
        guard a.isNumber, b.isNumber else { return true }
        let bLow = is64 ? b.number : b.number.low32, aLow = is64 ? a.number : a.number.low32
        guard refine(&state, i.destination, condition, a, bLow, is64) else { return false }
        if isRegister { return refine(&state, i.source, condition.mirrored, b, aLow, is64) }
        return true
    }

    private func refine(_ state: inout AbstractState, _ register: UInt8, _ condition: Comparison, _ a: AbstractValue, _ b: Scalar, _ is64: Bool) -> Bool {
        let isWhole = is64 || a.number.max <= 0xffff_ffff
        if condition == .equal, let constant = b.constant, !learn(&state, a, constant, bytes: is64 ? 8 : 4) { return false }
        guard isWhole else { return true }
        guard var number = limited(a.number, condition, b, is64) else { return false }
        if condition == .noBit, let bits = b.constant { number = number & Scalar(~bits) }
        if let part = a.part { state.facts.learn(part, in: number.min...number.max) }
        // What branches tell is the same for a value read again; of what was loaded only the register is narrowed.
        state.registers[Int(register)].number = number
        return true
    }

    private func limited(_ a: Scalar, _ condition: Comparison, _ b: Scalar, _ is64: Bool) -> Scalar? {
        let top: UInt64 = is64 ? UInt64(Int64.max) : 0x7fff_ffff
        switch condition {
        case .equal: return a.limited(b.min...b.max)
        case .notEqual: return b.constant.map { a.without($0) } ?? a
        case .above: return b.min == .max ? nil : a.limited((b.min + 1)...(.max))
        case .atLeast: return a.limited(b.min...(.max))
        case .below: return b.max == 0 ? nil : a.limited(0...(b.max - 1))
        case .atMost: return a.limited(0...b.max)
        case .signedAbove where b.max < top: return a.limited((b.min + 1)...top)
        case .signedAtLeast where b.max <= top: return a.limited(b.min...top)
        case .signedBelow where b.max <= top && b.max > 0 && a.max <= top: return a.limited(0...(b.max - 1))
        case .signedAtMost where b.max <= top && a.max <= top: return a.limited(0...b.max)
        default: return a
        }
    }

    private func learn(_ state: inout AbstractState, _ a: AbstractValue, _ constant: UInt64, bytes: Int) -> Bool {
        var known: [(position: Int, value: UInt8)] = []
        for byte in 0..<bytes where a.origins[byte] >= 0 {
            known.append((Int(a.origins[byte]), UInt8(truncatingIfNeeded: constant >> UInt64(byte * 8))))
        }
        if state.facts.rulesOut(known) { return false }
        if !known.isEmpty { state.facts.learn(known) }
        if let part = a.part, let value = part.byte(where: constant) { state.facts.learn(part, is: value) }
        return true
    }

    private func refinePointers(_ state: inout AbstractState, _ i: Instruction, _ condition: Comparison, _ a: AbstractValue, _ b: AbstractValue) {
        if b.isNumber, b.number.isZero {
            // A pointer is never null; what is null is no pointer.
            let isNull = condition == .equal || condition == .atMost, isOther = condition == .notEqual || condition == .above
            if isNull, a.kinds.contains(.number) {
                var number = AbstractValue.constant(0)
                number.taint(a.taint)
                state.registers[Int(i.destination)] = number
            } else if isOther, a.number.isZero {
                state.registers[Int(i.destination)].kinds.remove(.number)
            }
            return
        }
        func prove(_ pointer: AbstractValue, _ condition: Comparison) {
            guard pointer.kinds == .packet else { return }
            switch condition {
            case .atMost, .equal: state.prove(pointer.anchor, pointer.delta)
            case .below: state.prove(pointer.anchor, pointer.delta + 1)
            default: break
            }
        }
        if b.kinds == .packetEnd { prove(a, condition) }
        if a.kinds == .packetEnd { prove(b, condition.mirrored) }
    }
}

extension Scalar {
    /// Bits that may be set.
    var ceilingBits: UInt64 { value | mask }
}
