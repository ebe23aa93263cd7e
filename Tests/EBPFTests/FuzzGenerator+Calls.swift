@testable import EBPF

/// Helpers, functions of the program, and functions that helpers call back.
extension FuzzGenerator {
    mutating func helper() {
        switch Int.random(in: 0..<16, using: &random) {
        case 0, 1: difference()
        case 2: text()
        case 3: redirect()
        // What no two engines agree on is reduced to nothing.
        case 4: plain(7, shift: 32)
        case 5: plain(5, shift: 63)
        case 6: plain(8, shift: nil)
        default: withContext()
        }
    }

    private mutating func plain(_ helper: Int32, shift: Int32?) {
        emit(Asm.call(helper))
        afterCall()
        if let shift { emit(Asm.alu(0x77, 0, imm: shift)) }
    }

    private mutating func withContext() {
        guard let context = f.contextRegister else { return }
        switch Int.random(in: 0..<9, using: &random) {
        case 0: contextCall(context, 188) { _ in }
        case 1: loadBytes(context)
        case 2: event(context)
        case 3 where f.loops == 0: storeBytes(context)
        case 4 where f.loops == 0: adjust(context, 44, by: [0, 4, -4, 14, -14, 20, -20, 100, -216, -217, 4000, -4000])
        case 5 where f.loops == 0: adjust(context, 65, by: [0, -4, 4, -20, 33, -60, 3000, 4000, -4000])
        case 6, 7: if f.loops == 0 { metadata(context) }
        default: if f.loops == 0 && f.depth <= 1 && oneIn(2) { tailCall(context) }
        }
    }

    /// The context in r1, what else comes in the registers behind it.
    private mutating func contextCall(_ context: UInt8, _ helper: Int32, _ arguments: (inout FuzzGenerator) -> Void) {
        emit(Asm.mov(1, context))
        set(1, .context)
        arguments(&self)
        emit(Asm.call(helper))
        afterCall()
    }

    private mutating func difference() {
        value()
        let sizes: [UInt64] = [0, 4, 8, 16, 3, 7]
        argument(1, f.valueOffset, 16)
        number(2, pick(sizes))
        argument(3, f.valueOffset, 16)
        number(4, pick(sizes))
        if oneIn(2) { number(5, corner()) } else {
            emit(Asm.load(Asm.double, 5, 10, slot()))
            set(5, .scalar(nil))
        }
        emit(Asm.call(28))
        afterCall()
    }

    private mutating func text() {
        let words: [UInt64] = [0x3837_3635_3433_3231, 0x2020_2066_3178_302d, 0x0000_3737_3020, 0x6667_6665_6462_6361, 0x3939_3939_3939_3939, 0x2b31_0a09]
        for at in [f.valueOffset, f.valueOffset + 8] {
            let d = free()
            number(d, oneIn(4) ? corner() : pick(words))
            emit(Asm.store(Asm.double, 10, at, d))
        }
        emit(Asm.store(Asm.double, 10, f.keyOffset, imm: 3))
        emit(Asm.mov(1, 10))
        emit(Asm.alu(0x07, 1, imm: Int32(f.valueOffset)))
        number(2, UInt64(Int.random(in: 1...16, using: &random)))
        number(3, UInt64(pick([0, 0, 8, 10, 16, 7])))
        emit(Asm.mov(4, 10))
        emit(Asm.alu(0x07, 4, imm: Int32(f.keyOffset)))
        emit(Asm.call(oneIn(2) ? 105 : 106))
        afterCall()
        let d = free(except: [0])
        emit(Asm.load(Asm.double, d, 10, f.keyOffset))
        set(d, .scalar(nil))
    }

    private mutating func redirect() {
        if oneIn(3) {
            number(1, UInt64(pick([1, 2])))
            number(2, UInt64(pick([0, 0, 1])))
            emit(Asm.call(23))
        } else {
            map(1, .devices)
            number(2, UInt64(pick([0, 1, 2, 3, 4, 5])))
            number(3, UInt64(pick([0, 1, 2, 3, 8, 24, 32])))
            emit(Asm.call(51))
        }
        afterCall()
    }

    private mutating func loadBytes(_ context: UInt8) {
        value()
        let offset: UInt64 = pick([0, 1, 14, 52, 100, 0xffff, 0x1_0000])
        contextCall(context, 189) {
            $0.number(2, offset)
            $0.emit(Asm.mov(3, 10))
            $0.emit(Asm.alu(0x07, 3, imm: Int32($0.f.valueOffset)))
            $0.number(4, $0.pick([1, 8, 16]))
        }
        let d = free(except: [0])
        emit(Asm.load(Asm.double, d, 10, f.valueOffset))
        set(d, .scalar(nil))
    }

    private mutating func storeBytes(_ context: UInt8) {
        value()
        let offset: UInt64 = pick([0, 1, 14, 52, 100, 0xffff, 0x1_0000])
        contextCall(context, 190) {
            $0.number(2, offset)
            $0.argument(3, $0.f.valueOffset, 16, packets: false)
            $0.number(4, $0.pick([1, 8, 16]))
        }
        forgetPacket()
    }

    private mutating func event(_ context: UInt8) {
        value()
        contextCall(context, 25) {
            $0.map(2, .events)
            $0.number(3, $0.pick([0, 1, 5, 0xffff_ffff, 14 << 32 | 0xffff_ffff, 0xfff_ffff_ffff, 1 << 53]))
            $0.argument(4, $0.f.valueOffset, 16, packets: false)
            $0.number(5, $0.pick([1, 8, 16]))
        }
    }

    private mutating func adjust(_ context: UInt8, _ helper: Int32, by distances: [Int32]) {
        let distance = pick(distances)
        contextCall(context, helper) {
            $0.emit(Asm.mov(2, imm: distance))
            $0.set(2, .scalar(nil))
        }
        forgetPacket()
        if !oneIn(4) { takePacket() }
    }

    /// Makes room in front of the packet, and uses what is there.
    private mutating func metadata(_ context: UInt8) {
        adjust(context, 54, by: [-4, -8, -8, -16, 4, 0, -6, -252, -256])
        guard let context = f.contextRegister else { return }
        let meta = free(except: [0, context]), data = free(except: [0, context, meta]), beyond = free(except: [0, context, meta, data])
        emit(Asm.load(Asm.word, meta, context, 8))
        emit(Asm.load(Asm.word, data, context, 0))
        for register in [meta, data, beyond] { set(register, .metadata(0)) }
        emit(Asm.mov(beyond, meta))
        emit(Asm.alu(0x07, beyond, imm: 8))
        let before = f.types
        let over = jump(Instruction(opcode: 0x2d, destination: beyond, source: data))
        set(meta, .metadata(8))
        set(data, .none)
        set(beyond, .none)
        for _ in 0..<Int.random(in: 1...3, using: &random) { access(meta) }
        land(over)
        join(before)
        for register in [meta, data, beyond] where !type(register).isScalar { set(register, .none) }
    }

    private mutating func tailCall(_ context: UInt8) {
        contextCall(context, 12) {
            $0.map(2, .programs)
            $0.number(3, UInt64($0.pick([0, 1, 2, 3, 3, 3, 4])))
        }
        // It gives no answer, though it comes back where there is no such program.
        set(0, .none)
        forgetPacket()
    }

    // MARK: Functions

    static let depthMax = 3

    mutating func callFunction() {
        let there = signatures.keys.sorted().filter { functions[$0]?.kind == .called && isMet(signatures[$0] ?? []) && f.depth + 1 + (functions[$0]?.height ?? 9) <= FuzzGenerator.depthMax }
        let place: Int
        if !there.isEmpty && oneIn(2) {
            place = pick(there)
        } else {
            guard f.depth < FuzzGenerator.depthMax, functions.count < 8 else { return }
            let fuel = Int.random(in: 1...5, using: &random)
            place = function(.called, signature(), fuel: fuel) {
                $0.accessArguments()
                while $0.f.fuel > 0 { $0.statement() }
                if $0.oneIn(2) || !$0.type(0).isScalar { $0.fold() }
            }
        }
        guard let callee = functions[place] else { return }
        pass(signatures[place] ?? [])
        f.calls.append((f.lines.count, place))
        emit(Instruction(opcode: 0x85, source: PseudoSource.call))
        afterCall()
        f.height = max(f.height, callee.height + 1)
        forget(callee.moves)
        if callee.movesPacket { forgetPacket() }
    }

    private func holders(_ isWanted: (FuzzType) -> Bool) -> [UInt8] { (6...9).map(UInt8.init).filter { isWanted(type($0)) } }

    /// Arguments that can be had here.
    private mutating func signature() -> [FuzzType] {
        (0..<Int.random(in: 1...4, using: &random)).map { _ in
            switch Int.random(in: 0..<6, using: &random) {
            case 0, 1: return f.contextRegister != nil ? .context : .scalar(nil)
            case 2: return .lent(8 * f.slots)
            case 3:
                let there = holders { ($0.room ?? 0) >= 8 && $0.isPassable }
                return there.isEmpty ? .scalar(nil) : type(pick(there))
            default: return .scalar(nil)
            }
        }
    }

    private func isMet(_ signature: [FuzzType]) -> Bool {
        signature.allSatisfy { wanted in
            switch wanted {
            case .context: f.contextRegister != nil
            case .lent(let n): 8 * f.slots >= n
            case .packet, .value: !holders { $0.passes(for: wanted) }.isEmpty
            default: true
            }
        }
    }

    /// Into r1 and on, out of registers that this leaves alone.
    private mutating func pass(_ signature: [FuzzType]) {
        for (index, wanted) in signature.enumerated() {
            let register = UInt8(index + 1)
            switch wanted {
            case .context: emit(Asm.mov(register, f.contextRegister ?? 1))
            case .lent: stackPointer(register)
            case .packet, .value: emit(Asm.mov(register, pick(holders { $0.passes(for: wanted) })))
            default:
                let numbers = holders { $0.isScalar }
                if !numbers.isEmpty && oneIn(2) { emit(Asm.mov(register, pick(numbers))) }
                else if oneIn(2) { number(register, corner()) } else { emit(Asm.load(Asm.double, register, 10, slot())) }
            }
            set(register, wanted)
        }
    }

    // MARK: Callbacks

    mutating func callBack() {
        guard f.depth < FuzzGenerator.depthMax, functions.count < 8 else { return }
        let each: FuzzMap? = oneIn(2) ? pick([.array, .own, .hash]) : nil
        let lent = FuzzType.lent(8 * f.slots)
        let place: Int, lendsContext = each != .hash && f.contextRegister != nil && oneIn(2)
        if lendsContext, let context = f.contextRegister {
            // Right below what is lent.
            emit(Asm.store(Asm.double, 10, f.spillOffset, context))
            f.spilled = .context
        }
        if let each {
            let isOrdered = each != .hash
            let arguments: [FuzzType] = [.none, .key(each.definition.keySize), .value(each, each.valueSize), lent]
            place = function(.callback, arguments, fuel: 2, contextBelow: lendsContext ? 4 : nil) { if isOrdered { $0.callbackBody() } else { $0.unordered() } }
            map(1, each)
        } else {
            place = function(.callback, [.scalar(nil), lent], fuel: 2, contextBelow: lendsContext ? 2 : nil) { $0.callbackBody() }
            if oneIn(2) { number(1, UInt64(Int.random(in: 1...6, using: &random))) } else {
                emit(Asm.load(Asm.double, 1, 10, slot()))
                // Never none: the verifier of Linux 6.18 loses the function of a loop without rounds.
                emit(Asm.alu(0x57, 1, imm: 7))
                emit(Asm.alu(0x47, 1, imm: 1))
                set(1, .scalar(nil))
            }
        }
        guard let callee = functions[place] else { return }
        f.calls.append((f.lines.count, place))
        emit(Instruction(opcode: 0x18, destination: 2, source: PseudoSource.function))
        emit(Instruction(opcode: 0))
        set(2, .function)
        stackPointer(3)
        number(4, 0)
        emit(Asm.call(each == nil ? 181 : 164))
        afterCall()
        forget(callee.moves)
    }

    /// What a function was given is used, mostly.
    private mutating func accessArguments() {
        for register in (1...9).map(UInt8.init) where type(register).room ?? 0 > 0 && oneIn(2) { access(register) }
    }

    private mutating func callbackBody() {
        accessArguments()
        if f.contextRegister != nil {
            takePacket()
            if let packet = memory({ if case .packet(let n) = $0 { n > 0 } else { false } }) { access(packet) }
        }
        for _ in 0..<Int.random(in: 1...3, using: &random) { statement() }
        if !type(0).isScalar { emit(Asm.mov(0, imm: 0)) }
        set(0, .scalar(nil))
    }

    /// A hash shows its entries in any order: what is done with them must not tell which.
    private mutating func unordered() {
        // Key, value and lent stack still lie where they came: r2 to r4.
        emit(Asm.load(Asm.double, 1, 3, 0))
        set(1, .scalar(nil))
        emit(Asm.load(Asm.double, 5, 2, 0))
        set(5, .scalar(nil))
        emit(Asm.alu(pick([0x2f, 0xaf, 0x0f]), 1, 5))
        emit(Asm.atomic(true, pick([0x00, 0xa0]), 4, 0, 1))
        emit(Asm.atomic(true, 0x00, 3, 8, 5))
        emit(Asm.mov(0, imm: 0))
        set(0, .scalar(nil))
    }
}

extension FuzzType {
    var isPassable: Bool {
        switch self {
        case .packet, .value: true
        default: false
        }
    }

    /// Whether it will do where a function was written for `wanted`.
    func passes(for wanted: FuzzType) -> Bool {
        switch (self, wanted) {
        case (.packet(let a), .packet(let b)): a >= b
        case (.value(let a, let n), .value(let b, let m)): a == b && n >= m
        default: false
        }
    }
}
