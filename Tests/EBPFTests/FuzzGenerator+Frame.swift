@testable import EBPF

/// How functions begin and end.
extension FuzzGenerator {
    /// Fills the slots, and keeps what came in r1 to r5 where calls leave it alone.
    mutating func prologue() {
        for at in 1...f.slots {
            let offset = Int16(-8 * at)
            let passed = (1...5).map(UInt8.init).filter { type($0).isScalar }
            if !passed.isEmpty && oneIn(2) { emit(Asm.store(Asm.double, 10, offset, pick(passed))) }
            else { emit(Asm.store(Asm.double, 10, offset, imm: immediate())) }
        }
        for from in (1...5).map(UInt8.init) where type(from) != .none && !type(from).isScalar {
            guard let to = (6...9).map(UInt8.init).shuffled(using: &random).first(where: { type($0) == .none }) else { break }
            emit(Asm.mov(to, from))
            set(to, type(from))
            if type(from) == .context && f.contextRegister == nil {
                f.contextRegister = to
                f.pinned.insert(to)
            }
        }
    }

    /// Ends the function here, behind a jump around it.
    mutating func bail() {
        let types = f.types
        emit(Asm.mov(0, imm: f.kind == .callback ? Int32.random(in: 0...1, using: &random) : Int32.random(in: 0...4, using: &random)))
        set(0, .scalar(nil))
        emit(Asm.exit)
        f.types = types
    }

    /// A pointer to the packet with some bytes that are there; what runs on a shorter packet ends.
    mutating func takePacket() {
        guard let context = f.contextRegister, !(6...9).allSatisfy({ f.pinned.contains($0) }) else { return }
        let data = free(except: [context], from: 6...9)
        let end = free(except: [context, data]), beyond = free(except: [context, data, end])
        let count = pick([8, 14, 20, 34, 34, 54, 60])
        if oneIn(2) {
            emit(Asm.load(Asm.word, data, context, 0))
            emit(Asm.load(Asm.word, end, context, 4))
        } else {
            emit(Asm.load(Asm.word, end, context, 4))
            emit(Asm.load(Asm.word, data, context, 0))
        }
        set(data, .packet(0))
        set(end, .packetEnd)
        emit(Asm.mov(beyond, data))
        set(beyond, .packet(0))
        emit(Asm.alu(0x07, beyond, imm: Int32(count)))
        // Jumps where the bytes are there, around the end.
        let forms: [(UInt8, UInt8, UInt8)] = [(0xbd, beyond, end), (0xad, beyond, end), (0x3d, end, beyond), (0x2d, end, beyond)]
        let (opcode, a, b) = pick(forms)
        let around = jump(Instruction(opcode: opcode, destination: a, source: b))
        bail()
        land(around)
        set(data, .packet(count))
        // How long it is.
        if oneIn(3) {
            emit(Asm.alu(0x1f, end, data))
            set(end, .scalar(nil))
        }
        if oneIn(3) { set(beyond, .none) }
    }

    /// Everything that was computed goes into r0.
    mutating func fold() {
        if !type(0).isScalar { number(0, 0x51ed_270b) }
        let rest = (1...9).map(UInt8.init).filter { type($0).isScalar }
        for register in rest { mix(register) }
        let spare = (1...9).map(UInt8.init).first { !f.pinned.contains($0) && type($0) == .none } ?? rest.first ?? 1
        for at in 1...f.slots {
            emit(Asm.load(Asm.double, spare, 10, Int16(-8 * at)))
            set(spare, .scalar(nil))
            mix(spare)
        }
        emit(Asm.mov(spare, 0))
        emit(Asm.alu(0x77, spare, imm: 32))
        emit(Asm.alu(0xaf, 0, spare))
    }

    private mutating func mix(_ register: UInt8) {
        emit(Asm.alu(0x27, 0, imm: 0x01000193))
        set(0, .scalar(nil))
        emit(Asm.alu(oneIn(2) ? 0x0f : 0xaf, 0, register))
    }

    mutating func leave() {
        if f.kind == .callback { emit(Asm.alu(0x57, 0, imm: 1)) }
        emit(Asm.exit)
    }

    // MARK: Functions under this one

    /// Writes a function and comes back.
    /// - Parameter contextBelow: the register with memory in it in front of which the context lies.
    /// - Returns: its place.
    mutating func function(_ kind: FuzzFunction.Kind, _ arguments: [FuzzType], fuel: Int, contextBelow: UInt8? = nil, _ body: (inout FuzzGenerator) -> Void) -> Int {
        let caller = f
        let place = functions.count
        functions.append(nil)
        f = FuzzFunction(kind: kind, fuel: fuel)
        f.depth = caller.depth + 1
        // It is called any number of times: what a loop must not do it must not do either.
        if kind == .callback { f.loops = 1 }
        for (index, type) in arguments.enumerated() { f.types[index + 1] = type }
        if let contextBelow {
            emit(Asm.load(Asm.double, 5, contextBelow, -8))
            set(5, .context)
        }
        prologue()
        body(&self)
        leave()
        let written = f
        functions[place] = written
        signatures[place] = arguments
        f = caller
        f.height = max(f.height, written.height + 1)
        return place
    }

    /// What a call, of a helper or a function, leaves of the registers.
    mutating func afterCall(_ result: FuzzType = .scalar(nil)) {
        for register in 1...5 { f.types[register] = .none }
        set(0, result)
    }

    /// Values of these maps may have moved.
    mutating func forget(_ maps: Set<FuzzMap>) {
        f.moves.formUnion(maps)
        for register in 0...9 {
            if case .value(let map, _) = f.types[register], maps.contains(map) { f.types[register] = .none }
        }
        if case .value(let map, _) = f.spilled, maps.contains(map) { f.spilled = .none }
    }

    /// The packet may have moved.
    mutating func forgetPacket() {
        f.movesPacket = true
        func isPacket(_ type: FuzzType) -> Bool {
            switch type {
            case .packet, .packetEnd, .metadata: true
            default: false
            }
        }
        for register in 0...9 where isPacket(f.types[register]) { f.types[register] = .none }
        if isPacket(f.spilled) { f.spilled = .none }
    }
}
