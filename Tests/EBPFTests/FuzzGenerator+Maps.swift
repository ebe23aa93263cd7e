@testable import EBPF

/// What programs do with maps.
extension FuzzGenerator {
    private static let tables: [FuzzMap] = [.array, .hash, .own, .ownHash, .lru, .trie]

    mutating func mapStatement() {
        switch Int.random(in: 0..<16, using: &random) {
        case 0..<5: lookup(pick(FuzzGenerator.tables + [.global]))
        case 5, 6: update(pick(FuzzGenerator.tables))
        case 7: delete(pick(FuzzGenerator.tables))
        case 8, 9: queue(pick([.queue, .stack]))
        case 10, 11: record()
        case 12: outer()
        case 13: perCPU(pick([.own, .ownHash]))
        default: direct()
        }
    }

    /// A pointer to `size` bytes, which lie in the frame or in other memory that helpers read.
    mutating func argument(_ register: UInt8, _ offset: Int16, _ size: Int, packets: Bool = true) {
        // What lies in r1 to r5 may be the argument before.
        let others = (6...9).map(UInt8.init).filter {
            switch type($0) {
            case .packet(let n): packets && n >= size
            case .value(_, let n), .lent(let n): n >= size
            default: false
            }
        }
        if !others.isEmpty && oneIn(4) {
            let base = pick(others)
            emit(Asm.mov(register, base))
            set(register, type(base))
            return
        }
        emit(Asm.mov(register, 10))
        set(register, .stack(0))
        emit(Asm.alu(0x07, register, imm: Int32(offset)))
        set(register, .stack(Int(offset)))
    }

    /// A key in its place in the frame: mostly one that may be there.
    private mutating func key(_ map: FuzzMap) {
        let at = f.keyOffset
        if map == .trie {
            emit(Asm.store(Asm.word, 10, at, imm: pick([0, 8, 24, 24, 32, 32, 32, 33])))
            emit(Asm.store(Asm.word, 10, at + 4, imm: pick([10, 0x0001_000a, 0x0501_000a, 0, -1])))
        } else if oneIn(2) {
            emit(Asm.store(Asm.double, 10, at, imm: Int32.random(in: 0...5, using: &random)))
        } else {
            let s = scalar(), d = free(except: [s])
            emit(Asm.mov(d, s))
            emit(Asm.alu(oneIn(2) ? 0x57 : 0x54, d, imm: pick([3, 7])))
            set(d, .scalar(nil))
            emit(Asm.store(Asm.double, 10, at, d))
        }
    }

    mutating func value() {
        for at in [f.valueOffset, f.valueOffset + 8] {
            if oneIn(3) { emit(Asm.store(Asm.double, 10, at, imm: immediate())) } else { emit(Asm.store(Asm.double, 10, at, scalar())) }
        }
    }

    private mutating func keyed(_ map: FuzzMap) {
        key(map)
        self.map(1, map)
        argument(2, f.keyOffset, map.definition.keySize)
    }

    private mutating func lookup(_ map: FuzzMap) {
        keyed(map)
        emit(Asm.call(1))
        afterCall(.none)
        found(.value(map, map.valueSize))
    }

    private mutating func perCPU(_ map: FuzzMap) {
        keyed(map)
        number(3, UInt64(pick([0, 0, 1, 200])))
        emit(Asm.call(195))
        afterCall(.none)
        found(.value(map, map.valueSize))
    }

    /// r0 is a pointer or 0: the program ends here if it is 0, or goes around what uses it.
    private mutating func found(_ type: FuzzType) {
        set(0, type)
        if oneIn(2) && f.kind != .callback {
            let around = jump(Instruction(opcode: 0x55, destination: 0))
            bail()
            land(around)
            use()
            return
        }
        let over = jump(Instruction(opcode: 0x15, destination: 0))
        var before = f.types
        before[0] = .scalar(nil)
        let spilled = f.spilled
        use()
        if oneIn(3) && f.fuel > 0 { statement() }
        land(over)
        join(before, spilled: spilled)
    }

    /// Works on what r0 points to.
    private mutating func use() {
        var base: UInt8 = 0
        let open = (6...9).map(UInt8.init).filter { !f.pinned.contains($0) }
        if !open.isEmpty && oneIn(2) {
            base = pick(open)
            emit(Asm.mov(base, 0))
            set(base, type(0))
        }
        for _ in 0..<Int.random(in: 1...3, using: &random) where type(base).room != nil { access(base) }
    }

    private mutating func update(_ map: FuzzMap) {
        value()
        keyed(map)
        argument(3, f.valueOffset, map.valueSize)
        number(4, UInt64(pick([0, 0, 0, 1, 2, 3])))
        emit(Asm.call(2))
        afterCall()
        if !map.isStable { forget([map]) }
    }

    private mutating func delete(_ map: FuzzMap) {
        keyed(map)
        emit(Asm.call(3))
        afterCall()
        if !map.isStable { forget([map]) }
    }

    private mutating func queue(_ map: FuzzMap) {
        let helper: Int32 = pick([87, 87, 88, 89])
        value()
        self.map(1, map)
        emit(Asm.mov(2, 10))
        emit(Asm.alu(0x07, 2, imm: Int32(f.valueOffset)))
        if helper == 87 { number(3, UInt64(pick([0, 0, 2, 1]))) }
        emit(Asm.call(helper))
        afterCall()
        guard helper != 87 else { return }
        let d = free(except: [0])
        emit(Asm.load(Asm.double, d, 10, f.valueOffset + pick([0, 8])))
        set(d, .scalar(nil))
    }

    /// A value by its address, which the loader knows.
    private mutating func direct() {
        let d = free(), at = 8 * Int.random(in: 0...7, using: &random)
        for half in FuzzTargets.map(d, .global, value: Int32(at)) { emit(half) }
        set(d, .value(.global, FuzzMap.globalSize - at))
        for _ in 0..<Int.random(in: 1...3, using: &random) { access(d) }
    }

    private mutating func outer() {
        key(.outer)
        map(1, .outer)
        argument(2, f.keyOffset, 4)
        emit(Asm.call(1))
        afterCall(.none)
        set(0, .map(.inner))
        let over = jump(Instruction(opcode: 0x15, destination: 0))
        var before = f.types
        before[0] = .scalar(nil)
        let spilled = f.spilled
        emit(Asm.mov(1, 0))
        set(1, .map(.inner))
        key(.inner)
        // The key's arithmetic may have used r1.
        if type(1) == .map(.inner) {
            argument(2, f.keyOffset, 4)
            emit(Asm.call(1))
            afterCall(.none)
            found(.value(.inner, FuzzMap.valueSize))
        }
        land(over)
        join(before, spilled: spilled)
    }

    // MARK: Records

    private mutating func record() {
        switch Int.random(in: 0..<4, using: &random) {
        case 0:
            map(1, .ring)
            number(2, UInt64(pick([0, 1])))
            emit(Asm.call(134))
            afterCall()
        case 1:
            value()
            map(1, .ring)
            argument(2, f.valueOffset, 16, packets: false)
            number(3, UInt64(pick([1, 8, 13, 16])))
            number(4, UInt64(pick([0, 0, 1, 2, 4])))
            emit(Asm.call(130))
            afterCall()
        default: reserved()
        }
    }

    /// Room for a record: filled, worked on, and given to the reader or not.
    private mutating func reserved() {
        let open = (6...9).map(UInt8.init).filter { !f.pinned.contains($0) }
        guard !open.isEmpty else { return }
        let base = pick(open), size = pick([16, 24])
        map(1, .ring)
        number(2, UInt64(size))
        number(3, 0)
        emit(Asm.call(131))
        afterCall(.none)
        set(0, .record(size))
        let over = jump(Instruction(opcode: 0x15, destination: 0))
        var before = f.types
        before[0] = .scalar(nil)
        emit(Asm.mov(base, 0))
        set(base, .record(size))
        f.pinned.insert(base)
        for at in stride(from: 0, to: size, by: 8) {
            if oneIn(2) { emit(Asm.store(Asm.double, base, Int16(at), imm: immediate())) } else { emit(Asm.store(Asm.double, base, Int16(at), scalar())) }
        }
        for _ in 0..<Int.random(in: 1...4, using: &random) { access(base) }
        emit(Asm.mov(1, base))
        number(2, UInt64(pick([0, 1, 2])))
        emit(Asm.call(oneIn(4) ? 133 : 132))
        f.pinned.remove(base)
        afterCall(.none)
        set(base, .none)
        land(over)
        join(before)
    }
}
