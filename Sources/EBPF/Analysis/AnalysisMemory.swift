/// Loads, stores and atomics, and memory that helpers read and write.
extension AnalysisEngine {
    private func bytes(_ i: Instruction) -> Int { [4, 2, 1, 8][Int(i.opcode >> 3 & 3)] }

    func load(_ i: Instruction, _ at: Int, _ state: inout AbstractState) {
        guard [0x60, 0x80].contains(i.opcode & 0xe0) else { return giveUp("an instruction that is none") }
        let size = bytes(i)
        var pointer = state.registers[Int(i.source)]
        pointer.move(by: Int64(i.offset))
        if !AnalysisBug.has(.addresses) { look(pointer.taint, at, "is part of an address") }
        var value = read(pointer, size: size, at, &state)
        if i.opcode & 0xe0 == 0x80, value.isNumber, size < 8 {
            let taint = value.taint
            value = .number(value.number.extended(bits: UInt64(size * 8)))
            value.taint(taint)
        }
        set(i.destination, value, &state)
    }

    /// What `size` bytes behind a pointer may hold.
    private func read(_ pointer: AbstractValue, size: Int, _ at: Int, _ state: inout AbstractState) -> AbstractValue {
        let isProved = isInBounds(pointer, Int64(size), state)
        accessed(at, isProved: isProved)
        var result: AbstractValue?
        func add(_ value: AbstractValue) { result = result?.joined(value) ?? value }
        let kinds = pointer.kinds
        if kinds.contains(.context) { add(contextField(pointer, size, state)) }
        if kinds.contains(.packet) { add(packetBytes(pointer, size, at, &state)) }
        if kinds.contains(.stack) { add(stackBytes(pointer, size, state)) }
        if kinds.contains(.mapValue) || kinds.contains(.metadata) { add(.number(Scalar(bits: size * 8))) }
        if isWild(pointer) || kinds.contains(.packetEnd) || kinds.contains(.map) || !(isProved || isVerified) {
            var value = AbstractValue.unknown
            value.taint(read(at: at) | state.fieldLabels | state.labels(frame: AbstractValue.anyFrame, from: -512, to: 0))
            readsPacket(at)
            add(value)
        }
        return result ?? .unknown
    }

    /// A number used as an address. A plain null beside a pointer is none: verified code does not follow it.
    private func isWild(_ pointer: AbstractValue) -> Bool {
        pointer.kinds == .number || pointer.kinds.contains(.number) && !pointer.number.isZero
    }

    private func contextField(_ pointer: AbstractValue, _ size: Int, _ state: AbstractState) -> AbstractValue {
        guard pointer.lower == pointer.upper, size == 4, pointer.lower % 4 == 0, (0..<24).contains(pointer.lower) else {
            return .number(Scalar(bits: size * 8))
        }
        switch pointer.lower {
        case 0:
            var packet = AbstractValue.pointer(.packet)
            (packet.lower, packet.upper) = (state.headLower, state.headUpper)
            return packet
        case 4: return .pointer(.packetEnd)
        case 8: return .pointer(.metadata)
        default: return .number(Scalar(bits: 32))
        }
    }

    private func packetBytes(_ pointer: AbstractValue, _ size: Int, _ at: Int, _ state: inout AbstractState) -> AbstractValue {
        readsPacket(at)
        var value = AbstractValue.number(Scalar(bits: size * 8))
        let isOwn = pointer.upper + Int64(size) > state.writtenLower && pointer.lower < state.writtenUpper
        if pointer.lower == pointer.upper, !isOwn, pointer.lower >= 0, pointer.lower + Int64(size) < Origin.limit {
            for byte in 0..<size { value.origins[byte] = Int16(pointer.lower) + Int16(byte) }
            if size == 1 { value.part = BytePart(position: Int16(pointer.lower), mask: 0xff, shift: 0) }
        }
        switch state.facts.overlap(pointer, size: Int64(size)) {
        case .none: break
        case .exact(let first, let isUDP):
            var own = !AnalysisBug.has(.ownReads)
            for byte in 0..<2 where (0..<size).contains(first + byte) {
                value.tainted |= 1 << UInt8(first + byte)
                if state.ownField >> UInt8(byte) & 1 == 0 { own = false }
                if (isUDP || AnalysisBug.has(.tcpZero)) && !isOwn { value.origins[first + byte] = byte == 0 ? Origin.udpFieldHigh : Origin.udpFieldLow }
            }
            value.labels = state.fieldLabels | read(at: at, isOwn: own, isCertain: pointer.kinds == .packet, isUDP: isUDP)
        case .possible(let bytes):
            value.tainted = bytes
            value.labels = state.fieldLabels | read(at: at, isOwn: state.ownField == 3)
        }
        if value.labels == 0 { value.tainted = 0 }
        return value
    }

    private func stackBytes(_ pointer: AbstractValue, _ size: Int, _ state: AbstractState) -> AbstractValue {
        if pointer.lower == pointer.upper, pointer.frame != AbstractValue.anyFrame {
            return state.load(frame: Int(pointer.frame), at: pointer.lower, size: size)
        }
        var value = AbstractValue.unknown
        for (depth, frame) in state.frames.enumerated() where pointer.frame == AbstractValue.anyFrame || depth == Int(pointer.frame) {
            for (index, slot) in frame.slots.enumerated() {
                let start = Int64(index * 8 - AbstractFrame.bytes)
                guard start + 8 > pointer.lower, start < pointer.upper + Int64(size), size == 8, !slot.isNumber else { continue }
                value = value.joined(slot)
            }
        }
        if size < 8 { value = .number(Scalar(bits: size * 8)) }
        value.taint(state.labels(frame: pointer.frame, from: pointer.lower, to: pointer.upper + Int64(size)))
        return value
    }

    // MARK: Stores

    func store(_ i: Instruction, _ at: Int, _ state: inout AbstractState) {
        let size = bytes(i), isAtomic = i.instructionClass == 3 && i.opcode & 0xe0 == 0xc0
        guard i.opcode & 0xe0 == 0x60 || isAtomic && size >= 4 else { return giveUp("an instruction that is none") }
        var pointer = state.registers[Int(i.destination)]
        pointer.move(by: Int64(i.offset))
        look(pointer.taint, at, "is part of an address")
        var value = i.instructionClass == 2 ? AbstractValue.constant(UInt64(bitPattern: Int64(i.immediate))) : operand(i.source, state)
        guard isAtomic else { return write(value, pointer, size: size, at, &state) }
        // The old value goes to a register, a number made of both to memory.
        let old = read(pointer, size: size, at, &state)
        var made = AbstractValue.number(Scalar(bits: size * 8))
        made.taint(old.taint | value.taint | (i.immediate & 0xf0 == 0xf0 ? state.registers[0].taint : 0))
        let isPlainExchange = i.immediate == 0xe1
        if isPlainExchange { value.taint(old.taint) } else { value = made }
        write(value, pointer, size: size, at, &state)
        if i.immediate == 0xf1 { set(0, size == 4 ? old.low(bytes: 4) : old, &state) }
        else if i.immediate & 1 != 0 { set(i.source, size == 4 ? old.low(bytes: 4) : old, &state) }
    }

    private func write(_ value: AbstractValue, _ pointer: AbstractValue, size: Int, _ at: Int, _ state: inout AbstractState) {
        let isProved = isInBounds(pointer, Int64(size), state, writes: true)
        accessed(at, isProved: isProved)
        let kinds = pointer.kinds
        var value = value
        value.taint(control: controlLabels)
        let kept: UInt8 = size == 8 ? 0xff : UInt8((1 << size) - 1)
        let taint = value.tainted & kept == 0 ? 0 : value.taint
        if kinds.contains(.packet) { writePacket(value, pointer, size, at, &state) }
        if kinds.contains(.stack) {
            let isCertain = kinds == .stack && pointer.lower == pointer.upper && pointer.frame != AbstractValue.anyFrame
            if AnalysisBug.has(.spills) { value = .unknown }
            if isCertain { state.store(value, frame: Int(pointer.frame), at: pointer.lower, size: size) }
            else { state.smear(value, frame: pointer.frame, from: pointer.lower, to: pointer.upper + Int64(size)) }
        }
        if kinds.contains(.mapValue), !AnalysisBug.has(.maps) { look(taint, at, "is stored to a map") }
        if kinds.contains(.metadata) { look(taint, at, "is stored to the packet's metadata") }
        if kinds.contains(.context) || kinds.contains(.map) { look(taint, at, "is stored") }
        if isWild(pointer) || kinds.contains(.packetEnd) || !(isProved || isVerified) { writeAnywhere(value, at, &state) }
    }

    /// Packet, maps, any frame: nobody knows which.
    private func writeAnywhere(_ value: AbstractValue, _ at: Int, _ state: inout AbstractState) {
        look(value.taint, at, "is stored")
        clears(at)
        stored(at, lower: -AbstractValue.far, upper: AbstractValue.far, l3: nil)
        (state.writtenLower, state.writtenUpper) = (-AbstractValue.far, AbstractValue.far)
        state.smear(value, frame: AbstractValue.anyFrame, from: -512, to: 0)
    }

    /// A store to the field itself keeps what is closed closed; its bytes are the program's own from then on.
    func writePacket(_ value: AbstractValue, _ pointer: AbstractValue, _ size: Int, _ at: Int, _ state: inout AbstractState) {
        let upper = pointer.upper + Int64(size)
        let overlap = state.facts.overlap(pointer, size: Int64(size))
        stored(at, lower: pointer.lower, upper: upper, l3: state.facts.l3, isField: overlap.isField(size), isCertain: pointer.kinds == .packet)
        state.writtenLower = min(state.writtenLower, pointer.lower)
        state.writtenUpper = max(state.writtenUpper, upper)
        let all: UInt8 = size >= 8 ? 0xff : UInt8((1 << size) - 1)
        let tainted = value.taint == 0 ? 0 : value.tainted & all
        if overlap.mayBeUDP {
            let isOwnZero = value.number.constant == 0 || value.isOwnZero(size) || tainted != all && value.mayHoldZero(size)
            if isOwnZero && !AnalysisBug.has(.ownZero) || AnalysisBug.has(.anyZero) { clears(at) }
            if tainted != 0 { derives(value.labels, at) }
        }
        guard case .exact(let first, _) = overlap, pointer.kinds == .packet else {
            if tainted != 0, !AnalysisBug.has(.otherBytes) { look(value.labels, at, "is stored to other bytes of the packet") }
            return
        }
        var field: UInt8 = 0
        for byte in 0..<2 where (0..<size).contains(first + byte) {
            field |= 1 << UInt8(first + byte)
            state.ownField |= 1 << UInt8(byte)
        }
        if tainted & ~field != 0, !AnalysisBug.has(.otherBytes) { look(value.labels, at, "is stored to other bytes of the packet") }
        let labels = tainted & field == 0 || AnalysisBug.has(.ownBytes) ? 0 : value.labels
        state.fieldLabels = field.nonzeroBitCount == 2 ? labels : state.fieldLabels | labels
    }

    // MARK: Memory of helpers

    /// Labels of what a helper reads behind a pointer, at most `size` bytes.
    func labels(behind pointer: AbstractValue, size: Int64, _ at: Int, _ state: AbstractState) -> UInt64 {
        look(pointer.taint, at, "is part of an address")
        guard size > 0 else { return 0 }
        var labels: UInt64 = 0
        if pointer.kinds.contains(.packet) {
            readsPacket(at)
            switch state.facts.overlap(pointer, size: size) {
            case .none: break
            case .exact(let first, let isUDP):
                var own = true
                for byte in 0..<2 where Int64(first + byte) >= 0 && Int64(first + byte) < size && state.ownField >> UInt8(byte) & 1 == 0 { own = false }
                labels |= state.fieldLabels | read(at: at, isOwn: own, isUDP: isUDP)
            case .possible: labels |= state.fieldLabels | read(at: at, isOwn: state.ownField == 3)
            }
        }
        if pointer.kinds.contains(.stack) { labels |= state.labels(frame: pointer.frame, from: pointer.lower, to: pointer.upper + size) }
        if pointer.kinds == .number && !pointer.number.isZero || !(isVerified || isInBounds(pointer, size, state)) {
            readsPacket(at)
            labels |= read(at: at) | state.fieldLabels | state.labels(frame: AbstractValue.anyFrame, from: -512, to: 0)
        }
        return labels
    }

    /// A helper writes `size` bytes behind a pointer: certainly all of them, or at most as many.
    func fill(_ pointer: AbstractValue, size: ClosedRange<Int64>, with labels: UInt64, _ at: Int, _ state: inout AbstractState) {
        look(pointer.taint, at, "is part of an address")
        guard size.upperBound > 0 else { return }
        var value = AbstractValue.unknown
        value.taint(labels)
        if !(isVerified || isInBounds(pointer, size.upperBound, state, writes: true)) { writeAnywhere(value, at, &state) }
        if pointer.kinds == .stack, pointer.lower == pointer.upper, pointer.frame != AbstractValue.anyFrame, size.count == 1, size.upperBound <= 512 {
            var offset: Int64 = 0
            while offset < size.upperBound {
                let step = size.upperBound - offset >= 8 && (pointer.lower + offset) % 8 == 0 ? 8 : 1
                state.store(step == 8 ? value : value.low(bytes: 1), frame: Int(pointer.frame), at: pointer.lower + offset, size: step)
                offset += Int64(step)
            }
            return
        }
        if pointer.kinds.contains(.stack) { state.smear(value, frame: pointer.frame, from: pointer.lower, to: pointer.upper + size.upperBound) }
        if pointer.kinds.contains(.packet) {
            stored(at, lower: pointer.lower, upper: pointer.upper + size.upperBound, l3: state.facts.l3)
            state.writtenLower = min(state.writtenLower, pointer.lower)
            state.writtenUpper = max(state.writtenUpper, pointer.upper + size.upperBound)
            look(labels | controlLabels, at, "is stored to other bytes of the packet")
            if state.facts.overlap(pointer, size: size.upperBound).mayBeUDP { clears(at) }
        }
        if pointer.kinds.contains(.mapValue) || pointer.kinds.contains(.metadata) { look(labels | controlLabels, at, "is stored to a map") }
        if pointer.kinds == .number && !pointer.number.isZero { giveUp("a helper writes where nobody knows") }
    }

    // MARK: Bounds

    /// Whether an access is safe in every run, with no check.
    private func isInBounds(_ pointer: AbstractValue, _ size: Int64, _ state: AbstractState, writes: Bool = false) -> Bool {
        switch pointer.kinds {
        case .context: return pointer.lower >= 0 && pointer.upper + size <= 24 && pointer.lower == pointer.upper
        case .stack: return pointer.lower >= -512 && pointer.upper + size <= 0 && pointer.frame != AbstractValue.anyFrame
        case .packet:
            guard pointer.anchor != .max, pointer.lower >= state.headUpper, let proven = state.proven[pointer.anchor] else { return false }
            return pointer.delta + size <= proven
        case .mapValue:
            let maps = code.linked.maps
            let sizes = (0...AbstractValue.lastMap).filter { pointer.maps >> UInt64($0) & 1 != 0 }.map { index -> Int64 in
                index < AbstractValue.lastMap && maps.indices.contains(index) ? plainBytes(of: maps[index], writes: writes) : 0
            }
            return pointer.lower >= 0 && pointer.upper + size <= sizes.min() ?? 0
        default: return false
        }
    }

    /// Bytes of a value that are the program's to use: what the sandbox would otherwise guard (a device's entry, a lock)
    /// is proved for nobody.
    private func plainBytes(of map: MapDefinition, writes: Bool) -> Int64 {
        guard let kind = MapKind(map.type), [.array, .hash, .lruHash, .prefixTrie].contains(kind) else { return 0 }
        return writes && map.spinLockOffset != nil ? 0 : Int64(map.valueSize)
    }
}
