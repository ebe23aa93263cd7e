internal import CLLVM
import EBPF

/// Loads, stores, atomics, and what they mean for sandbox and tracking.
extension FunctionEmitter {
    private func kind(bytes: Int) -> IR.Kind {
        switch bytes {
        case 1: unsafe ir.i8
        case 2: unsafe ir.i16
        case 4: unsafe ir.i32
        default: unsafe ir.i64
        }
    }

    /// Whether bytes of this function's own frame are meant, all inside of it.
    func isOwnFrame(_ register: Int, _ offset: Int, bytes: Int, at: Int) -> Bool {
        guard case .frame(let top) = shape(register, at: at) else { return false }
        let from = Int(top) + offset
        return from >= -RunLayout.Run.frameBytes && from + bytes <= 0
    }

    /// The memory behind a register: by way of the frame where it is the frame's, so that LLVM sees which bytes.
    func place(_ register: Int, _ offset: Int = 0, bytes: Int, at: Int) -> IR.Value {
        if isOwnFrame(register, offset, bytes: bytes, at: at), case .frame(let top) = shape(register, at: at) {
            return unsafe ir.offset(frame, RunLayout.Run.frameBytes + Int(top) + offset)
        }
        return unsafe ir.offset(ir.place(self.register(register)), offset)
    }

    // MARK: Loads

    func load(_ i: DecodedInstruction, _ at: Int) {
        let d = Int(i.destination), s = Int(i.source)
        guard i.operation == .load32, shape(s, at: at).mayBeContext else {
            return unsafe set(d, loaded(i, at))
        }
        let distance = unsafe ir.sub(ir.add(register(s), ir.word(Int(i.offset))), ir.word(RunLayout.Run.context))
        let field = unsafe ir.newBlock("context"), memory = unsafe ir.newBlock("memory"), go = unsafe ir.newBlock("go")
        unsafe ir.branch(ir.below(distance, ir.word(24)), field, memory)
        unsafe ir.position(at: memory)
        let other = unsafe loaded(i, at), otherEnd = unsafe ir.currentBlock
        unsafe ir.jump(go)
        unsafe ir.position(at: field)
        let own = unsafe contextField(distance), ownEnd = unsafe ir.currentBlock
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
        unsafe set(d, ir.phi(ir.i64, [(own, ownEnd), (other, otherEnd)]))
    }

    /// `struct xdp_md`, by the distance from its start.
    private func contextField(_ distance: IR.Value) -> IR.Value {
        let context = RunLayout.Context.self
        let fields: [(Int, IR.Value)] = unsafe [
            (0, packetPlace(.data)), (4, program.planted == .contextEnd ? ofContext(RunLayout.Context.end) : packetPlace(.end)), (8, packetPlace(.meta)),
            (12, arrival32(context.ingressIndex)), (16, arrival32(context.rxQueue)),
        ]
        return unsafe fields.reduce(ir.word(0)) { rest, field in unsafe ir.select(ir.equal(distance, ir.word(field.0)), field.1, rest) }
    }

    private func arrival32(_ offset: Int) -> IR.Value {
        unsafe ir.zext(ir.load(ir.i32, ir.offset(track(ir.pointer, Tracks.context), offset), .run), ir.i64)
    }

    private func loaded(_ i: DecodedInstruction, _ at: Int) -> IR.Value {
        let bytes = i.operation.bytes
        check(Int(i.source), Int(i.offset), bytes: bytes, writes: false, at: at)
        let value = unsafe ir.load(kind(bytes: bytes), place(Int(i.source), Int(i.offset), bytes: bytes, at: at), .program)
        switch i.operation {
        case .loadSigned8, .loadSigned16, .loadSigned32: return unsafe program.planted == .loadSigned ? ir.zext(value, ir.i64) : ir.sext(value, ir.i64)
        case .load64: return unsafe value
        default: return unsafe ir.zext(value, ir.i64)
        }
    }

    // MARK: Stores

    func store(_ i: DecodedInstruction, _ at: Int) {
        let d = Int(i.destination), bytes = i.operation.bytes
        check(d, Int(i.offset), bytes: bytes, writes: true, at: at)
        record(d, Int(i.offset), bytes: bytes, at: at)
        let value = unsafe bytes == 8 ? operand(i) : ir.trunc(operand(i), kind(bytes: bytes))
        unsafe ir.store(value, place(d, Int(i.offset), bytes: bytes, at: at), .program)
    }

    func atomic(_ i: DecodedInstruction, _ at: Int) {
        let d = Int(i.destination), s = Int(i.source), bytes = i.operation.bytes
        let isWide = bytes == 8
        if unit.isSandboxed {
            let address = unsafe ir.add(register(d), ir.word(Int(i.offset)))
            unsafe fault(unless: ir.equal(ir.and(address, ir.word(bytes - 1)), ir.word(0)), .access)
        }
        check(d, Int(i.offset), bytes: bytes, writes: true, at: at)
        record(d, Int(i.offset), bytes: bytes, at: at)
        let place = unsafe place(d, Int(i.offset), bytes: bytes, at: at)
        let value = unsafe isWide ? register(s) : register32(s)
        func widened(_ value: IR.Value) -> IR.Value { unsafe isWide ? value : ir.zext(value, ir.i64) }
        if i.operation == .compareExchange32 || i.operation == .compareExchange64 {
            let expected = unsafe isWide ? register(0) : register32(0)
            let old = unsafe ir.compareExchange(place, expected, value)
            unsafe set(program.planted == .compareExchangeTarget ? s : 0, widened(old))
            return
        }
        let old = unsafe ir.atomic(atomicKind(i.operation), place, value)
        if i.operation.isFetch, program.planted != .noFetch { unsafe set(s, widened(old)) }
    }

    private func atomicKind(_ operation: Operation) -> LLVMAtomicRMWBinOp {
        switch operation {
        case .add32Atomic, .add64Atomic, .fetchAdd32, .fetchAdd64: LLVMAtomicRMWBinOpAdd
        case .or32Atomic, .or64Atomic, .fetchOr32, .fetchOr64: LLVMAtomicRMWBinOpOr
        case .and32Atomic, .and64Atomic, .fetchAnd32, .fetchAnd64: LLVMAtomicRMWBinOpAnd
        case .xor32Atomic, .xor64Atomic, .fetchXor32, .fetchXor64: LLVMAtomicRMWBinOpXor
        default: LLVMAtomicRMWBinOpXchg
        }
    }

    // MARK: Sandbox

    /// Stops an unverified program whose access the analysis could not prove and that leads where it may not.
    func check(_ register: Int, _ offset: Int, bytes: Int, writes: Bool, at: Int) {
        // The context counts as proved, but only as the fields it has: those loads do not come here.
        guard unit.isSandboxed, !unit.isProvedInBounds[at] || shape(register, at: at).mayBeContext, !isOwnFrame(register, offset, bytes: bytes, at: at), program.planted != .noBoundsCheck else { return }
        unsafe check(ir.add(self.register(register), ir.word(offset)), ir.word(bytes), writes: writes)
    }

    /// The same for what a helper is given, which is never proved.
    func check(argument register: Int, bytes: Int, writes: Bool = false, at: Int) {
        guard unit.isSandboxed, bytes > 0, !isOwnFrame(register, 0, bytes: bytes, at: at) else { return }
        unsafe check(self.register(register), ir.word(bytes), writes: writes)
    }

    /// The packet is asked first, here; the rest in the engine.
    func check(_ address: IR.Value, _ bytes: IR.Value, writes: Bool) {
        let meta = unsafe packetPlace(.meta), end = unsafe packetPlace(.end)
        // Sizes have 32 bits: what wraps around is below meta.
        let last = unsafe ir.add(address, bytes)
        let isPacket = unsafe ir.and(ir.compare(LLVMIntUGE, address, meta), ir.and(ir.compare(LLVMIntULE, last, end), ir.compare(LLVMIntUGE, last, address)))
        let ask = unsafe ir.newBlock("ask"), good = unsafe ir.newBlock("touch")
        unsafe ir.branch(isPacket, good, ask)
        unsafe ir.position(at: ask)
        let answer = unsafe ir.external("apus_may_touch", ir.i32, [(program.run, ir.pointer), (address, ir.i64), (bytes, ir.i64), (ir.int(writes ? 1 : 0), ir.i32)])
        unsafe fault(unless: ir.notEqual(answer, ir.int(0)), .access)
        unsafe ir.jump(good)
        unsafe ir.position(at: good)
    }
}
