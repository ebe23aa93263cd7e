@testable import EBPF

/// Numbers: arithmetic in every form, and memory under them.
extension FuzzGenerator {
    /// add sub mul div or and lsh rsh mod xor mov arsh
    private static let kinds: [UInt8] = [0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x9, 0xa, 0xb, 0xc]

    mutating func arithmetic() {
        switch Int.random(in: 0..<12, using: &random) {
        case 0: swap()
        case 1: extend()
        case 2:
            let d = changed()
            emit(Asm.alu(oneIn(2) ? 0x87 : 0x84, d))
            set(d, .scalar(nil))
        case 3: number(free(), corner())
        default: binary()
        }
    }

    private mutating func binary() {
        let kind = pick(FuzzGenerator.kinds), is64 = oneIn(2), suffix: UInt8 = is64 ? 0x07 : 0x04
        let isDivision = kind == 0x3 || kind == 0x9, isShift = kind == 0x6 || kind == 0x7 || kind == 0xc
        let signed: Int16 = isDivision && oneIn(2) ? 1 : 0
        let d = target()
        if oneIn(2) {
            var k = immediate()
            if isShift { k = oneIn(3) ? pick([0, 1]) : Int32.random(in: 2..<(is64 ? 64 : 32), using: &random) }
            if isDivision && k == 0 { k = -1 }
            emit(Asm.alu(kind << 4 | suffix, d, offset: signed, imm: k))
            set(d, .scalar(kind == 0xb && is64 ? UInt64(bitPattern: Int64(k)) : nil))
        } else {
            let s = operand(except: d)
            emit(Asm.alu(kind << 4 | suffix | 8, d, s, offset: signed))
            set(d, kind == 0xb && is64 ? type(s) : .scalar(nil))
        }
    }

    /// A second operand: what is there, or a number where operations change their ways.
    mutating func operand(except d: UInt8) -> UInt8 {
        if oneIn(2) { return scalar(except: oneIn(8) ? [] : [d]) }
        let s = free(except: [d])
        number(s, corner())
        return s
    }

    /// The operand of what has one.
    private mutating func changed() -> UInt8 {
        let d = target()
        if oneIn(3) { number(d, corner()) }
        return d
    }

    private mutating func swap() {
        let d = changed()
        emit(Asm.alu(pick([0xd4, 0xdc, 0xd7]), d, imm: pick([16, 32, 64])))
        set(d, .scalar(nil))
    }

    private mutating func extend() {
        let s = oneIn(2) ? scalar() : operand(except: 10), d = oneIn(3) ? target() : free()
        let forms: [(UInt8, Int16)] = [(0xbf, 8), (0xbf, 16), (0xbf, 32), (0xbc, 8), (0xbc, 16)]
        let (opcode, width) = pick(forms)
        emit(Asm.alu(opcode, d, s, offset: width))
        set(d, .scalar(nil))
    }

    // MARK: Memory

    static func bytes(_ size: UInt8) -> Int {
        switch size {
        case Asm.byte: 1
        case Asm.half: 2
        case Asm.word: 4
        default: 8
        }
    }

    /// A place of `size` in what `base` points to. Stack slots and a caller's stack want it aligned.
    private mutating func place(_ base: UInt8, _ size: Int, aligned: Bool) -> Int16? {
        if base == 10 { return slot() + Int16(pick(Array(stride(from: 0, to: 8, by: size)))) }
        guard let room = type(base).room, room >= size else { return nil }
        let isAligned: Bool
        switch type(base) {
        case .stack, .lent: isAligned = true
        default: isAligned = aligned
        }
        // A pointer into the frame reaches up to r10: past the slots nothing is known.
        if case .stack(let offset) = type(base), offset < -8 * f.slots { return nil }
        let places = isAligned ? room / size : room - size + 1
        return Int16(Int.random(in: 0..<places, using: &random) * (isAligned ? size : 1))
    }

    private static func isReadable(_ type: FuzzType) -> Bool { type.room != nil }
    private static func isWritable(_ type: FuzzType) -> Bool { if case .key = type { false } else { type.room != nil } }

    /// One of the three, on this pointer.
    mutating func access(_ base: UInt8) {
        switch type(base) {
        case .key: load(base)
        case .packet, .metadata: if oneIn(2) { load(base) } else { store(base) }
        default: pick3(base)
        }
    }

    private mutating func pick3(_ base: UInt8) {
        switch Int.random(in: 0..<3, using: &random) {
        case 0: load(base)
        case 1: store(base)
        default: atomic(base)
        }
    }

    private static func isAtomic(_ type: FuzzType) -> Bool {
        switch type {
        case .stack, .lent, .value, .record: true
        default: false
        }
    }

    mutating func load(_ wanted: UInt8? = nil) {
        if wanted == nil, let context = f.contextRegister, oneIn(8) {
            let d = free()
            emit(Asm.load(Asm.word, d, context, pick([12, 16])))
            set(d, .scalar(nil))
            return
        }
        let base = wanted ?? (oneIn(4) ? 10 : memory(FuzzGenerator.isReadable) ?? 10)
        let signed = oneIn(3), size = signed ? pick([Asm.byte, Asm.half, Asm.word]) : self.size()
        guard let at = place(base, FuzzGenerator.bytes(size), aligned: false) else { return }
        let d = free(except: base == 10 || wanted == nil && oneIn(6) ? [] : [base])
        emit(Asm.load(size, d, base, at, signed: signed))
        set(d, .scalar(nil))
    }

    mutating func store(_ wanted: UInt8? = nil) {
        let base = wanted ?? (oneIn(4) ? 10 : memory(FuzzGenerator.isWritable) ?? 10)
        let size = self.size()
        guard let at = place(base, FuzzGenerator.bytes(size), aligned: false) else { return }
        if oneIn(2) {
            emit(Asm.store(size, base, at, imm: immediate()))
        } else {
            emit(Asm.store(size, base, at, scalar(except: base == 10 ? [] : [base])))
        }
    }

    /// Not on the packet: the verifier says no.
    mutating func atomic(_ wanted: UInt8? = nil) {
        let base = wanted ?? (oneIn(3) ? 10 : memory(FuzzGenerator.isAtomic) ?? 10)
        let is64 = oneIn(2)
        guard let at = place(base, is64 ? 8 : 4, aligned: true) else { return }
        let isOnStack: Bool = if base == 10 { true } else {
            switch type(base) {
            case .stack, .lent: true
            default: false
            }
        }
        let fetching: [Int32] = isOnStack && f.contextRegister == nil ? [] : [0x01, 0x41, 0x51, 0xa1, 0xe1, 0xf1]
        let kind = pick([0x00, 0x40, 0x50, 0xa0] + fetching)
        if kind == 0xf1 {
            if base == 0 { return }
            // What is there already, so that the exchange happens; or something else.
            emit(oneIn(2) ? Asm.load(is64 ? Asm.double : Asm.word, 0, base, at) : Asm.mov(0, imm: immediate()))
            set(0, .scalar(nil))
        }
        let s = kind & 1 == 1 && kind != 0xf1 ? target(except: [base]) : scalar(except: [base])
        guard s != base else { return }
        emit(Asm.atomic(is64, kind, base, at, s))
        guard kind & 1 == 1 else { return }
        let result = kind == 0xf1 ? 0 : s
        set(result, .scalar(nil))
        // Clears the upper half, which is clear (RFC 9669 section 5.3); Linux 6.18 may leave it as it was
        // (`FuzzTests.whereTheKernelLeavesTheUpperHalf`).
        if kind == 0xf1 && !is64 { emit(Asm.alu(0xbc, 0, 0)) }
        if isOnStack { blur(result) }
    }

    /// Changes nothing, but the verifier does not know: by the number of the receive queue, which is 0. Linux 6.18 takes what
    /// an atomic finds in a known stack slot for a constant without remembering why, prunes the ways on which the slot
    /// holds something else, and drops their branches as dead (`FuzzTests.whereTheKernelErrs`).
    private mutating func blur(_ register: UInt8) {
        guard let context = f.contextRegister else { return }
        let zero = free(except: [register])
        emit(Asm.load(Asm.word, zero, context, 16))
        set(zero, .scalar(nil))
        // All 64 bits of it are unknown then.
        emit(Asm.alu(0x27, zero, imm: -1))
        emit(Asm.alu(0xaf, register, zero))
    }

    // MARK: Pointers

    mutating func pointer() {
        switch Int.random(in: 0..<5, using: &random) {
        case 0: spill()
        case 1: variablePacket()
        case 2: variableValue()
        case 3: variableStack()
        default: step()
        }
    }

    /// A pointer into the slots.
    mutating func stackPointer(_ register: UInt8) {
        emit(Asm.mov(register, 10))
        set(register, .stack(0))
        let offset = -8 * f.slots
        emit(Asm.alu(0x07, register, imm: Int32(offset)))
        set(register, .stack(offset))
    }

    /// On by some bytes, by a number in the code or in a register; sometimes back again.
    private mutating func step() {
        let base: UInt8
        if oneIn(3) {
            base = free(from: 0...9)
            stackPointer(base)
        } else {
            guard let there = memory({ ($0.room ?? 0) >= 16 }) else { return }
            base = there
        }
        if case .key = type(base) { return }
        let d = free(except: [base])
        emit(Asm.mov(d, base))
        set(d, type(base))
        let back = oneIn(3)
        move(d, 8)
        if back { move(d, -8) }
    }

    private mutating func move(_ d: UInt8, _ distance: Int) {
        let isDown = distance < 0
        // Nothing may be subtracted from a pointer to the stack.
        let isStack = switch type(d) {
        case .stack, .lent: true
        default: false
        }
        if isStack {
            if isDown || oneIn(2) {
                emit(Asm.alu(0x07, d, imm: Int32(distance)))
            } else {
                let s = free(except: [d])
                number(s, UInt64(distance))
                emit(Asm.alu(0x0f, d, s))
            }
        } else if oneIn(2) {
            emit(isDown == oneIn(2) ? Asm.alu(0x07, d, imm: Int32(distance)) : Asm.alu(0x17, d, imm: Int32(-distance)))
        } else {
            let s = free(except: [d])
            number(s, UInt64(abs(distance)))
            emit(Asm.alu(isDown ? 0x1f : 0x0f, d, s))
        }
        switch type(d) {
        case .packet(let n): set(d, .packet(n - distance))
        case .metadata(let n): set(d, .metadata(n - distance))
        case .lent(let n): set(d, .lent(n - distance))
        case .record(let n): set(d, .record(n - distance))
        case .value(let map, let n): set(d, .value(map, n - distance))
        case .stack(let offset): set(d, .stack(offset + distance))
        default: set(d, .none)
        }
    }

    private mutating func spill() {
        guard f.loops == 0 else { return }
        if f.spilled != .none && oneIn(2) {
            let d = free()
            emit(Asm.load(Asm.double, d, 10, f.spillOffset))
            set(d, f.spilled)
        } else if let base = memory({ $0 != .none && !$0.isScalar && $0 != .function }) {
            if case .map = type(base) { return }
            emit(Asm.store(Asm.double, 10, f.spillOffset, base))
            f.spilled = type(base)
        }
    }

    /// A number in a register, at most `mask`.
    private mutating func masked(_ mask: Int32, except: [UInt8]) -> UInt8 {
        let s = scalar(except: except), d = free(except: except)
        emit(Asm.mov(d, s))
        emit(Asm.alu(oneIn(2) ? 0x57 : 0x54, d, imm: mask))
        set(d, .scalar(nil))
        return d
    }

    /// Header lengths: the packet from a place that the packet says.
    private mutating func variablePacket() {
        guard let context = f.contextRegister, let base = memory({ if case .packet = $0 { true } else { false } }) else { return }
        let offset = masked(pick([7, 15, 60]), except: [base, context])
        let d = free(except: [base, context, offset])
        emit(Asm.mov(d, base))
        set(d, .packet(0))
        emit(Asm.alu(0x0f, d, offset))
        let end = free(except: [base, context, d]), beyond = free(except: [base, context, d, end])
        emit(Asm.load(Asm.word, end, context, 4))
        set(end, .packetEnd)
        emit(Asm.mov(beyond, d))
        set(beyond, .packet(0))
        emit(Asm.alu(0x07, beyond, imm: 8))
        let outer = f.types
        let over = jump(Instruction(opcode: 0x2d, destination: beyond, source: end))
        set(d, .packet(8))
        set(beyond, .none)
        for _ in 0..<Int.random(in: 1...2, using: &random) { access(d) }
        land(over)
        join(outer)
        set(d, .none)
    }

    private mutating func variableValue() {
        guard let base = memory({ if case .value(_, let n) = $0 { n >= 16 } else { false } }) else { return }
        let offset = masked(8, except: [base]), d = free(except: [base, offset])
        emit(Asm.mov(d, base))
        set(d, type(base))
        emit(Asm.alu(0x0f, d, offset))
        if case .value(let map, let n) = type(base) { set(d, .value(map, n - 8)) }
        if oneIn(2) { load(d) } else { atomic(d) }
        set(d, .none)
    }

    private mutating func variableStack() {
        let d = free(except: [])
        stackPointer(d)
        let offset = masked(f.kind == .program ? 24 : 8, except: [d])
        emit(Asm.alu(0x0f, d, offset))
        // Eight bytes of them are slots wherever it points.
        if oneIn(2) {
            let to = free(except: [d])
            emit(Asm.load(Asm.double, to, d, 0))
            set(to, .scalar(nil))
        } else {
            emit(Asm.store(Asm.double, d, 0, scalar(except: [d])))
        }
        set(d, .none)
    }
}
