/// Instructions of classes 4 and 7, and the dispatch to the others.
extension AnalysisEngine {
    /// Follows one instruction; false: control does not go on behind it, or was handed on.
    func step(_ i: Instruction, _ at: Int, _ state: inout AbstractState) -> Bool {
        guard i.destination <= 10, i.source <= 10 else {
            giveUp("an instruction that is none")
            return false
        }
        switch i.instructionClass {
        case 0: return loadImmediate(i, at, &state)
        case 1: load(i, at, &state)
        case 2, 3: store(i, at, &state)
        case 4, 7: arithmetic(i, at, &state)
        default: return jump(i, at, &state)
        }
        return limit == nil
    }

    /// A register as an operand: what branches said about the bytes it is made of counts.
    func operand(_ register: UInt8, _ state: AbstractState) -> AbstractValue {
        var value = state.registers[Int(register)]
        if value.isNumber, let part = value.part, let known = state.facts.number(part),
           let limited = value.number.limited(known.min...known.max) {
            value.number = limited
        }
        if value.isNumber, value.number.constant == nil, let known = constant(value, state.facts) { value.number = Scalar(known) }
        return value
    }

    /// The number, where every byte of it is known or one of the arrival that the facts know.
    private func constant(_ value: AbstractValue, _ facts: PacketFacts) -> UInt64? {
        var result: UInt64 = 0
        for byte in 0..<8 {
            let shift = UInt64(byte * 8)
            if value.number.isKnown(byte: byte) { result |= value.number.value & 0xff << shift; continue }
            guard value.origins[byte] >= 0, let known = facts.byte(Int(value.origins[byte])) else { return nil }
            result |= UInt64(known) << shift
        }
        return result
    }

    /// What an instruction computes between a branch on the field and where its arms meet differs with it.
    func set(_ register: UInt8, _ value: AbstractValue, _ state: inout AbstractState) {
        state.registers[Int(register)] = value
        state.registers[Int(register)].taint(control: controlLabels)
    }

    private func loadImmediate(_ i: Instruction, _ at: Int, _ state: inout AbstractState) -> Bool {
        guard i.isLoadImmediate64, code.instructions.indices.contains(at + 1) else {
            giveUp("an instruction that is none")
            return false
        }
        let high = code.instructions[at + 1].immediate
        var value: AbstractValue
        switch i.source {
        case 0: value = .constant(UInt64(UInt32(bitPattern: high)) << 32 | UInt64(UInt32(bitPattern: i.immediate)))
        case PseudoSource.mapFD, PseudoSource.mapValue:
            value = .pointer(i.source == PseudoSource.mapFD ? .map : .mapValue, at: i.source == PseudoSource.mapFD ? 0 : Int64(high))
            value.maps = 1 << UInt64(min(max(Int(i.immediate), 0), AbstractValue.lastMap))
        // As the decoder has it: a number that is not 0.
        case PseudoSource.kernelObject: value = .constant(UInt64(UInt32(bitPattern: i.immediate)))
        case PseudoSource.function:
            value = .unknown
            value.function = at + 1 + Int(i.immediate)
        default:
            giveUp("an instruction that is none")
            return false
        }
        set(i.destination, value, &state)
        return true
    }

    private func arithmetic(_ i: Instruction, _ at: Int, _ state: inout AbstractState) {
        let is64 = i.instructionClass == 7, isRegister = i.opcode & 8 != 0
        var a = operand(i.destination, state)
        var b = isRegister ? operand(i.source, state) : .constant(UInt64(bitPattern: Int64(i.immediate)))
        let operation = i.opcode >> 4
        if operation == 0xb {
            guard i.offset != 0 else { return set(i.destination, is64 ? b : narrowed(b), &state) }
            guard [8, 16, 32].contains(i.offset) else { return giveUp("an instruction that is none") }
            var value = AbstractValue.number(plain(b).number.low(bytes: Int(i.offset) / 8).extended(bits: UInt64(i.offset)))
            value.taint(b.taint)
            return set(i.destination, is64 ? value : narrowed(value), &state)
        }
        if operation == 0xd {
            guard [16, 32, 64].contains(i.immediate) else { return giveUp("an instruction that is none") }
            let bytes = Int(i.immediate) / 8, isSwap = is64 || isRegister
            return set(i.destination, isSwap ? plain(a).swapped(bytes: bytes) : plain(a).low(bytes: bytes), &state)
        }
        if is64, operation <= 1, !a.isNumber || !b.isNumber {
            return set(i.destination, pointerSum(a, b, isMinus: operation == 1, at, &state), &state)
        }
        (a, b) = (is64 ? plain(a) : narrowed(a), is64 ? plain(b) : narrowed(b))
        var result = numbers(operation, a, b, bits: is64 ? 64 : 32, isSigned: i.offset == 1)
        if operation <= 1 { result.partSum = partSum(a, b, isMinus: operation == 1) }
        // Compilers take the distance of two pointers in 32 bits where no more are asked for.
        if !is64, operation == 1, let from = b.addressLow, let to = a.addressLow {
            let taint = result.taint
            result = .constant(UInt64(UInt32(truncatingIfNeeded: to - from)))
            result.taint(taint)
        }
        set(i.destination, is64 ? result : result.low(bytes: 4), &state)
    }

    /// A header length and a constant: offsets from the packet's start are made of them.
    private func partSum(_ a: AbstractValue, _ b: AbstractValue, isMinus: Bool) -> PartSum? {
        if let constant = b.number.constant, let sum = a.partSum ?? a.part.map({ PartSum(part: $0, more: 0) }) {
            let more = Int64(bitPattern: constant)
            guard more > -1 << 16, more < 1 << 16, abs(sum.more) < 1 << 20 else { return nil }
            return PartSum(part: sum.part, more: sum.more + (isMinus ? -more : more))
        }
        return isMinus || a.number.constant == nil || b.number.constant != nil ? nil : partSum(b, a, isMinus: false)
    }

    /// Pointers in arithmetic that makes none of them are numbers nobody knows.
    private func plain(_ value: AbstractValue) -> AbstractValue {
        guard !value.isNumber else { return value }
        var number = AbstractValue.unknown
        number.taint(value.taint)
        return number
    }

    private func narrowed(_ value: AbstractValue) -> AbstractValue {
        var result = plain(value).low(bytes: 4)
        result.addressLow = value.kinds == .packet && value.lower == value.upper ? value.lower : value.addressLow
        return result
    }

    private func numbers(_ operation: UInt8, _ a: AbstractValue, _ b: AbstractValue, bits: UInt64, isSigned: Bool) -> AbstractValue {
        let disjoint = (a.number.value | a.number.mask) & (b.number.value | b.number.mask) == 0
        var result: AbstractValue
        switch operation {
        case 0x4: return a.merged(b)
        case 0x0 where disjoint, 0xa where disjoint: return a.merged(b)
        case 0x0: result = .number(a.number + b.number)
        case 0x1: result = .number(a.number - b.number)
        case 0x2:
            if let factor = b.number.constant, factor.nonzeroBitCount == 1 { return a.shiftedLeft(UInt64(factor.trailingZeroBitCount)).tainted(by: b) }
            result = .number(a.number * b.number)
        case 0x3: result = .number(isSigned ? .unknown : a.number.divided(by: b.number))
        case 0x5:
            if let mask = b.number.constant { return a.masked(mask).tainted(by: b) }
            if let mask = a.number.constant { return b.masked(mask).tainted(by: a) }
            result = .number(a.number & b.number)
        case 0x6, 0x7, 0xc:
            guard let count = b.number.constant.map({ $0 & (bits - 1) }) else {
                result = .number(operation == 0x7 ? Scalar(range: 0...a.number.max) : .unknown)
                break
            }
            if operation == 0x6 { return a.shiftedLeft(count).tainted(by: b) }
            if operation == 0x7 || a.number.max < 1 << (bits - 1) { return a.shiftedRight(count).tainted(by: b) }
            result = .unknown
        case 0x8: result = .number(.zero - a.number)
        case 0x9: result = .number(isSigned ? .unknown : a.number.remainder(by: b.number))
        case 0xa: result = .number(a.number ^ b.number)
        default: result = .unknown
        }
        let taint = a.taint | b.taint
        guard taint != 0 else { return result }
        let bytes = a.tainted | b.tainted
        switch operation {
        case 0x5, 0xa: result.taint(taint, bytes: bytes)
        // Carries and borrows go up only.
        case 0x0, 0x1, 0x2, 0x8: result.taint(taint, bytes: .max << UInt8((operation == 0x8 ? a.tainted : bytes).trailingZeroBitCount))
        default: result.taint(taint)
        }
        return result
    }

    // MARK: Pointers

    private func pointerSum(_ a: AbstractValue, _ b: AbstractValue, isMinus: Bool, _ at: Int, _ state: inout AbstractState) -> AbstractValue {
        let pointers = a.taint | b.taint
        if !b.isNumber && (isMinus || !a.isNumber) {
            var number = AbstractValue.unknown
            if isMinus, a.kinds == .packet, b.kinds == .packet, a.lower == a.upper, b.lower == b.upper {
                number = .constant(UInt64(bitPattern: a.lower - b.lower))
            } else if isMinus, a.kinds == .packetEnd, b.kinds == .packet {
                number = .number(.unknown)
            }
            number.taint(pointers)
            return number
        }
        let (pointer, number) = a.isNumber ? (b, a) : (a, b)
        if !AnalysisBug.has(.addresses) { look(number.taint, at, "is part of an address") }
        var result = pointer
        if pointer.kinds.contains(.number) { result.number = .unknown }
        if let constant = number.number.constant {
            let distance = Int64(bitPattern: constant)
            guard distance > -AbstractValue.far, distance < AbstractValue.far else {
                result.loseOffset()
                return result
            }
            result.move(by: isMinus ? -distance : distance)
            return result
        }
        let anchor = UInt32(truncatingIfNeeded: context &* 1_000_003 &+ at &+ 1)
        state.forget(anchor: anchor)
        result.anchor = pointer.kinds.contains(.packet) && anchor != .max ? anchor : .max
        result.delta = 0
        result.beyondHeader = nil
        guard let range = number.number.signed, range.lowerBound > -AbstractValue.far, range.upperBound < AbstractValue.far else {
            result.lower = -AbstractValue.far
            result.upper = AbstractValue.far
            return result
        }
        if let sum = number.partSum ?? number.part.map({ PartSum(part: $0, more: 0) }), state.facts.isHeaderLength(sum.part), !isMinus,
           pointer.lower == pointer.upper {
            result.beyondHeader = pointer.lower + sum.more
        }
        result.lower = max(pointer.lower + (isMinus ? -range.upperBound : range.lowerBound), -AbstractValue.far)
        result.upper = min(pointer.upper + (isMinus ? -range.lowerBound : range.upperBound), AbstractValue.far)
        return result
    }
}
