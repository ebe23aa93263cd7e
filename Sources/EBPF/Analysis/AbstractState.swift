/// A frame of 512 bytes as 64 slots of eight; what was never stored is unknown.
struct AbstractFrame: Equatable {
    static let bytes = 512
    var slots = [AbstractValue](repeating: .unknown, count: 64)
}

/// What a caller gets back, r6 to r9, and behind them what a helper gives a callback each time it calls it.
struct SavedRegisters: Equatable {
    var values: [AbstractValue]
}

/// Everything known at one place of a program: registers, frames, the packet.
struct AbstractState: Equatable {
    /// r0 to r10, and the immediate operand.
    var registers = [AbstractValue](repeating: .unknown, count: 12)
    var frames = [AbstractFrame()]
    var saved: [SavedRegisters] = []
    var facts = PacketFacts()
    /// Where `data` is, from the arrival's first byte.
    var headLower: Int64 = 0
    var headUpper: Int64 = 0
    /// Packet bytes the program may have written: loads from here tell nothing about the arrival.
    var writtenLower: Int64 = AbstractValue.far
    var writtenUpper: Int64 = -AbstractValue.far
    /// Bytes of the checksum field that certainly are the program's own, a bit each, and what they may derive from.
    var ownField: UInt8 = 0
    var fieldLabels: UInt64 = 0
    /// Behind each anchor, how many bytes certainly come before the packet's end.
    var proven: [UInt32: Int64] = [:]

    struct Key: Hashable {
        let facts: PacketFacts.Key
        let head: Int64?
        /// Of the places packet pointers in registers point to: two ways through a parser stay two.
        var pointers: UInt64
        /// A helper has just said no (r0 is an error number): what it would have done is not done.
        let isRefused: Bool
    }
    var key: Key {
        Key(facts: facts.key, head: headLower == headUpper ? headLower : nil, pointers: pointers,
            isRefused: registers[0].isNumber && registers[0].number.min > UInt64(Int64.max))
    }

    private var pointers: UInt64 {
        var hash: UInt64 = 0
        for (register, value) in registers.enumerated() where value.kinds == .packet && (value.lower == value.upper || value.beyondHeader != nil) {
            let place = value.lower == value.upper ? UInt64(bitPattern: value.lower) : UInt64(bitPattern: value.beyondHeader ?? 0) | 1 << 40
            hash = (hash ^ place ^ UInt64(register) << 48) &* 0x9e37_79b9_7f4a_7c15
        }
        return hash
    }

    static func entry() -> AbstractState {
        var state = AbstractState()
        state.enter()
        return state
    }

    /// Registers and frame of a program at its start; the packet stays as it is. A tail call in a subprogram keeps the
    /// frames below: the new program returns to the caller.
    mutating func enter() {
        registers = registers.map(\.stale)
        registers[1] = .pointer(.context)
        registers[10] = .pointer(.stack)
        registers[10].frame = UInt8(frames.count - 1)
        // What stood in the frame is still there.
        let labels = self.labels(frame: UInt8(frames.count - 1), from: -512, to: 0)
        frames[frames.count - 1] = AbstractFrame()
        if labels != 0 {
            for index in 0..<64 { frames[frames.count - 1].slots[index].taint(labels) }
        }
    }

    /// - Parameter arguments: what a helper gives a function that it calls; of the caller's registers that function has none.
    mutating func call(back arguments: [AbstractValue]? = nil) {
        saved.append(SavedRegisters(values: Array(registers[6...9]) + (arguments ?? [])))
        if let arguments {
            for register in 1...5 { registers[register] = register <= arguments.count ? arguments[register - 1] : registers[register].stale }
        }
        registers[0] = registers[0].stale
        for register in 6...9 { registers[register] = registers[register].stale }
        frames.append(AbstractFrame())
        registers[10] = .pointer(.stack)
        registers[10].frame = UInt8(frames.count - 1)
    }

    /// The other way round.
    /// - Returns: what ``call(back:)`` was given; nil: there is no caller.
    mutating func leave() -> [AbstractValue]? {
        guard let values = saved.popLast()?.values, frames.count > 1 else { return nil }
        frames.removeLast()
        for register in 6...9 { registers[register] = values[register - 6] }
        for register in 1...5 { registers[register] = registers[register].stale }
        registers[10] = .pointer(.stack)
        registers[10].frame = UInt8(frames.count - 1)
        return Array(values[4...])
    }

    /// Makes this the join of both. Returns whether anything was added.
    mutating func join(_ other: AbstractState, widening: Bool) -> Bool {
        if self == other { return false }
        let old = self
        func merged(_ a: AbstractValue, _ b: AbstractValue) -> AbstractValue {
            let value = a.joined(b)
            return widening ? value.widened(from: a) : value
        }
        for index in registers.indices { registers[index] = merged(registers[index], other.registers[index]) }
        for depth in frames.indices where depth < other.frames.count && frames[depth] != other.frames[depth] {
            for index in 0..<64 { frames[depth].slots[index] = merged(frames[depth].slots[index], other.frames[depth].slots[index]) }
        }
        for depth in saved.indices where depth < other.saved.count {
            for index in saved[depth].values.indices where index < other.saved[depth].values.count { saved[depth].values[index] = merged(saved[depth].values[index], other.saved[depth].values[index]) }
        }
        facts = facts.joined(other.facts)
        headLower = min(headLower, other.headLower)
        headUpper = max(headUpper, other.headUpper)
        writtenLower = min(writtenLower, other.writtenLower)
        writtenUpper = max(writtenUpper, other.writtenUpper)
        if widening {
            if headLower < old.headLower { headLower = -AbstractValue.far }
            if headUpper > old.headUpper { headUpper = AbstractValue.far }
            if writtenLower < old.writtenLower { writtenLower = -AbstractValue.far }
            if writtenUpper > old.writtenUpper { writtenUpper = AbstractValue.far }
        }
        ownField &= other.ownField
        fieldLabels |= other.fieldLabels
        proven = proven.reduce(into: [:]) { result, item in
            if let theirs = other.proven[item.key] { result[item.key] = min(item.value, theirs) }
        }
        return self != old
    }

    // MARK: The packet's ends

    /// After a helper that moves one: old pointers are worth nothing.
    mutating func invalidatePackets() {
        func invalidated(_ value: AbstractValue) -> AbstractValue {
            guard !value.kinds.isDisjoint(with: [.packet, .packetEnd, .metadata]) || value.addressLow != nil else { return value }
            var number = AbstractValue.unknown
            number.taint(value.taint, bytes: value.tainted)
            return number
        }
        for index in registers.indices { registers[index] = invalidated(registers[index]) }
        for depth in frames.indices { for index in 0..<64 { frames[depth].slots[index] = invalidated(frames[depth].slots[index]) } }
        for depth in saved.indices { for index in saved[depth].values.indices { saved[depth].values[index] = invalidated(saved[depth].values[index]) } }
        proven = [:]
    }

    /// No pointer of this anchor is known any more: its instruction makes a new one.
    mutating func forget(anchor: UInt32) {
        func forgotten(_ value: AbstractValue) -> AbstractValue {
            guard value.anchor == anchor else { return value }
            var value = value
            value.loseAnchor()
            return value
        }
        for index in registers.indices where registers[index].anchor == anchor { registers[index] = forgotten(registers[index]) }
        for depth in frames.indices {
            for index in 0..<64 where frames[depth].slots[index].anchor == anchor {
                frames[depth].slots[index] = forgotten(frames[depth].slots[index])
            }
        }
        for depth in saved.indices { for index in saved[depth].values.indices { saved[depth].values[index] = forgotten(saved[depth].values[index]) } }
        proven[anchor] = nil
    }

    mutating func prove(_ anchor: UInt32, _ end: Int64) {
        guard anchor != .max, proven[anchor] != nil || proven.count < 32 else { return }
        proven[anchor] = max(proven[anchor] ?? end, end)
    }

    // MARK: Stack

    /// Loads `size` bytes at `offset` from the frame's top, which lie in it.
    func load(frame: Int, at offset: Int64, size: Int) -> AbstractValue {
        let start = Int(offset) + AbstractFrame.bytes, slot = start / 8, byte = start % 8
        guard frames.indices.contains(frame), start >= 0, start + size <= AbstractFrame.bytes else { return .unknown }
        if byte + size <= 8 {
            var value = AbstractState.extract(frames[frame].slots[slot], byte, size)
            // A byte that was copied there with others.
            if size == 1, value.isNumber, value.part == nil, value.origins[0] >= 0 { value.part = BytePart(position: value.origins[0], mask: 0xff, shift: 0) }
            return value
        }
        var result = AbstractState.extract(frames[frame].slots[slot], byte, 8 - byte)
        result = AbstractState.insert(AbstractState.extract(frames[frame].slots[slot + 1], 0, size - 8 + byte), into: result, 8 - byte, size - 8 + byte)
        return result
    }

    mutating func store(_ value: AbstractValue, frame: Int, at offset: Int64, size: Int) {
        let start = Int(offset) + AbstractFrame.bytes, slot = start / 8, byte = start % 8
        guard frames.indices.contains(frame), start >= 0, start + size <= AbstractFrame.bytes else { return }
        if byte + size <= 8 {
            frames[frame].slots[slot] = AbstractState.insert(value, into: frames[frame].slots[slot], byte, size)
        } else {
            let first = 8 - byte
            frames[frame].slots[slot] = AbstractState.insert(AbstractState.extract(value, 0, first), into: frames[frame].slots[slot], byte, first)
            frames[frame].slots[slot + 1] = AbstractState.insert(AbstractState.extract(value, first, size - first), into: frames[frame].slots[slot + 1], 0, size - first)
        }
    }

    /// Whatever may have been stored to these slots: they keep what they had, too.
    mutating func smear(_ value: AbstractValue, frame: UInt8, from lower: Int64, to upper: Int64) {
        let depths = frame == AbstractValue.anyFrame ? Array(frames.indices) : frames.indices.contains(Int(frame)) ? [Int(frame)] : []
        let first = max(0, Int(max(lower, -512)) + 512) / 8, last = min(511, Int(min(upper, 0)) + 511) / 8
        guard first <= last else { return }
        var stored = AbstractValue.unknown
        stored.taint(value.taint)
        for depth in depths {
            for index in first...last {
                let old = frames[depth].slots[index]
                // A pointer that is stored somewhere here may be loaded from any of them.
                frames[depth].slots[index] = old.joined(stored).joined(value.isNumber ? stored : value)
            }
        }
    }

    /// Labels of everything on the stack that a pointer may reach.
    func labels(frame: UInt8, from lower: Int64, to upper: Int64) -> UInt64 {
        var result: UInt64 = 0
        for (depth, contents) in frames.enumerated() where frame == AbstractValue.anyFrame || depth == Int(frame) {
            for (index, slot) in contents.slots.enumerated() where slot.isTainted {
                let start = Int64(index * 8 - AbstractFrame.bytes)
                for byte in 0..<8 where slot.tainted >> UInt8(byte) & 1 != 0 && start + Int64(byte) >= lower && start + Int64(byte) < upper {
                    result |= slot.labels
                }
            }
        }
        return result
    }

    private static func extract(_ value: AbstractValue, _ byte: Int, _ size: Int) -> AbstractValue {
        if byte == 0 && size == 8 { return value }
        guard value.isNumber else {
            var part = AbstractValue.number(Scalar(bits: size * 8))
            part.taint(value.taint)
            return part
        }
        return value.shiftedRight(UInt64(byte * 8)).low(bytes: size)
    }

    private static func insert(_ value: AbstractValue, into slot: AbstractValue, _ byte: Int, _ size: Int) -> AbstractValue {
        if byte == 0 && size == 8 { return value }
        let bits = (UInt64(1) << UInt64(size * 8)) - 1
        var kept = slot
        if !slot.isNumber {
            kept = .unknown
            kept.taint(slot.taint)
        }
        var part = value
        if !value.isNumber {
            part = .unknown
            part.taint(value.taint)
        }
        var result = kept.masked(~(bits << UInt64(byte * 8))).merged(part.low(bytes: size).shiftedLeft(UInt64(byte * 8)))
        result.mayBeOwnZero = slot.mayBeOwnZero || value.mayBeOwnZero
        return result
    }
}

/// Arithmetic on numbers that keeps track of bytes.
extension AbstractValue {
    /// What verified code does not read any more: of any value, but not of any origin.
    var stale: AbstractValue {
        var result = AbstractValue.unknown
        result.taint(taint)
        return result
    }

    /// Made with an operand that another run may have otherwise, though this state knows it.
    func tainted(by operand: AbstractValue) -> AbstractValue {
        var result = self
        result.taint(operand.taint)
        return result
    }

    func low(bytes: Int) -> AbstractValue {
        guard bytes < 8 else { return self }
        var result = AbstractValue.number(number.low(bytes: bytes))
        result.origins = origins
        for byte in bytes..<8 { result.origins[byte] = Origin.unknown }
        if number.max < 1 << UInt64(bytes * 8) { (result.part, result.partSum) = (part, partSum) }
        result.taint(taint, bytes: tainted & UInt8((1 << bytes) - 1))
        result.mayBeOwnZero = mayBeOwnZero
        return result
    }

    func shiftedRight(_ n: UInt64) -> AbstractValue {
        guard n > 0 else { return self }
        var result = AbstractValue.number(number.shiftedRight(n))
        if n % 8 == 0 { for byte in 0..<(8 - Int(n / 8)) { result.origins[byte] = origins[byte + Int(n / 8)] } }
        result.part = part?.shifted(-Int(n))
        let bytes = tainted >> UInt8(n / 8)
        result.taint(taint, bytes: n % 8 == 0 ? bytes : bytes | bytes >> 1)
        result.mayBeOwnZero = mayBeOwnZero
        return result
    }

    func shiftedLeft(_ n: UInt64) -> AbstractValue {
        guard n > 0 else { return self }
        var result = AbstractValue.number(number.shiftedLeft(n))
        if n % 8 == 0 { for byte in Int(n / 8)..<8 { result.origins[byte] = origins[byte - Int(n / 8)] } }
        if number.max < 1 << 16 { result.part = part?.shifted(Int(n)) }
        let bytes = tainted << UInt8(n / 8)
        result.taint(taint, bytes: n % 8 == 0 ? bytes : bytes | bytes << 1)
        result.mayBeOwnZero = mayBeOwnZero
        return result
    }

    func masked(_ constant: UInt64) -> AbstractValue {
        var result = AbstractValue.number(number & Scalar(constant))
        for byte in 0..<8 where constant >> UInt64(byte * 8) & 0xff == 0xff { result.origins[byte] = origins[byte] }
        result.part = part?.masked(constant)
        var bytes = tainted
        for byte in 0..<8 where constant >> UInt64(byte * 8) & 0xff == 0 { bytes &= ~(1 << UInt8(byte)) }
        result.taint(taint, bytes: bytes)
        result.mayBeOwnZero = mayBeOwnZero
        return result
    }

    /// `or`, or `xor` and `add` of numbers with no bit in common.
    func merged(_ other: AbstractValue) -> AbstractValue {
        var result = AbstractValue.number(number | other.number)
        for byte in 0..<8 {
            if other.number.isZero(byte: byte) { result.origins[byte] = origins[byte] }
            else if number.isZero(byte: byte) { result.origins[byte] = other.origins[byte] }
        }
        if other.number.isZero { result.part = part } else if number.isZero { result.part = other.part }
        result.taint(taint, bytes: tainted)
        result.taint(other.taint, bytes: other.tainted)
        return result
    }

    func swapped(bytes: Int) -> AbstractValue {
        let low = self.low(bytes: bytes)
        var result = AbstractValue.number(low.number.swapped(bytes: bytes))
        var taintedBytes: UInt8 = 0
        for byte in 0..<bytes {
            result.origins[byte] = low.origins[bytes - 1 - byte]
            if low.tainted >> UInt8(bytes - 1 - byte) & 1 != 0 { taintedBytes |= 1 << UInt8(byte) }
        }
        result.taint(low.taint, bytes: taintedBytes)
        result.mayBeOwnZero = mayBeOwnZero
        return result
    }
}
