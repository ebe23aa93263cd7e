internal import CLLVM
import EBPF

/// The burst loop: `i64 name(contexts, effects, count)`. Each run starts on a fresh record and leaves its effect; r0 of
/// the last one is the answer.
@safe struct BurstEmitter {
    private let program: ProgramEmitter
    private let ir: IR
    private typealias Run = RunLayout.Run
    private typealias Context = RunLayout.Context
    private typealias Outcome = RunLayout.Outcome

    init(_ program: ProgramEmitter) {
        self.program = program
        ir = program.ir
    }

    func emit(name: String) {
        let kind = unsafe ir.type(of: ir.i64, [ir.pointer, ir.pointer, ir.i64])
        let function = unsafe ir.function(name, kind, isInternal: false)
        for parameter in 0..<2 { unsafe ir.parameterAttribute("noalias", parameter, of: function) }
        let (contexts, effects, count) = unsafe (ir.parameter(0, of: function), ir.parameter(1, of: function), ir.parameter(2, of: function))
        let entry = unsafe ir.block("entry", in: function), head = unsafe ir.block("packet", in: function), end = unsafe ir.block("end", in: function)
        unsafe ir.position(at: entry)
        let run = unsafe ir.alloca(Run.size, align: 16, "run"), tracks = unsafe ir.alloca(Tracks.size, align: 16, "tracks")
        if program.needsMachine {
            _ = unsafe ir.external("apus_begin", ir.void, [(run, ir.pointer), (ir.word(program.unit.image), ir.i64), (contexts, ir.pointer)])
        }
        unsafe ir.jump(head)

        unsafe ir.position(at: head)
        let index = unsafe ir.phi(ir.i64, [(ir.word(0), entry)])
        let context = unsafe ir.offset(contexts, by: ir.mul(index, ir.word(Context.stride)))
        let effect = unsafe ir.offset(effects, by: ir.mul(index, ir.word(Outcome.stride)))
        unsafe begin(run, tracks, context, effect)
        guard let body = unsafe program.functions[0] else { preconditionFailure("a program has a body") }
        let zero = unsafe ir.word(0)
        var first = unsafe ir.word(Run.context), second = unsafe zero
        if program.unit.isRaw {
            let data = unsafe ir.load(ir.i64, ir.offset(context, Context.data), .run)
            unsafe second = ir.sub(ir.load(ir.i64, ir.offset(context, Context.end), .run), data)
            unsafe first = ir.select(ir.equal(second, zero), zero, data)
        }
        let r0 = unsafe ir.call(body, program.signature, [run, tracks, first, second, zero, zero, zero])
        unsafe finish(run, tracks, context, effect, r0)
        let next = unsafe ir.add(index, ir.word(1))
        unsafe ir.add(index, next, ir.currentBlock)
        unsafe ir.branch(ir.below(next, count), head, end)
        unsafe ir.position(at: end)
        unsafe ir.ret(r0)
    }

    // MARK: Before

    private func begin(_ run: IR.Value, _ tracks: IR.Value, _ context: IR.Value, _ effect: IR.Value) {
        func of(_ offset: Int, _ kind: IR.Kind) -> IR.Value { unsafe ir.load(kind, ir.offset(context, offset), .run) }
        func set(_ offset: Int, _ value: IR.Value) { unsafe ir.store(value, ir.offset(run, offset), .run) }
        if program.keepsPlace { unsafe RunEmitter(program).place(run, context) }
        if program.mayRedirect {
            unsafe set(Run.effect + Outcome.redirectIndex, ir.int(0))
            for offset in [Outcome.redirectMap, Outcome.redirectFlags] { unsafe set(Run.effect + offset, ir.word(0)) }
        }
        if program.hasTailCalls { unsafe set(Run.tailCalls, ir.int(0)) }
        let no = unsafe ir.constant(ir.i8, 0)
        if program.keepsState {
            unsafe set(Run.fault, no)
            if program.planted != .staleMachine { unsafe set(Run.isPrepared, no) }
        } else {
            unsafe ir.store(no, ir.offset(tracks, Tracks.fault), .run)
            if program.planted != .staleMachine { unsafe ir.store(no, ir.offset(tracks, Tracks.isPrepared), .run) }
        }
        if program.unit.isSandboxed {
            unsafe RunEmitter(program).prepare(run, context)
            unsafe ir.zero(ir.place(ir.load(ir.i64, ir.offset(run, Run.frames), .run)), bytes: Run.frameBytes, align: 16)
        }
        unsafe ir.store(context, ir.offset(tracks, Tracks.context), .run)
        unsafe ir.store(of(Context.watched, ir.i8), ir.offset(tracks, Tracks.watched), .run)
        unsafe ir.store(effect, ir.offset(tracks, Tracks.effect), .run)
        unsafe ir.store(ir.word(0), ir.offset(tracks, Tracks.written), .run)
        // In a few wide stores, and early: a locked counter waits for every store before it.
        unsafe ir.zero(effect, bytes: Outcome.size, align: 8)
    }

    // MARK: Afterwards

    private func finish(_ run: IR.Value, _ tracks: IR.Value, _ context: IR.Value, _ effect: IR.Value, _ r0: IR.Value) {
        func of(_ offset: Int, _ kind: IR.Kind) -> IR.Value { unsafe ir.load(kind, ir.offset(run, offset), .run) }
        func leave(_ offset: Int, _ value: IR.Value) { unsafe ir.store(value, ir.offset(effect, offset), .run) }
        func copy(_ offset: Int, _ kind: IR.Kind) { unsafe leave(offset, of(Run.effect + offset, kind)) }
        program.counts(for: -1)
        if program.unit.isSandboxed {
            let held = unsafe ir.newBlock("held"), go = unsafe ir.newBlock("go")
            unsafe ir.branchRarely(ir.notEqual(of(Run.heldLock, ir.i64), ir.word(0)), held, go)
            unsafe ir.position(at: held)
            _ = unsafe ir.external("apus_leave", ir.void, [(run, ir.pointer)])
            unsafe ir.jump(go)
            unsafe ir.position(at: go)
        }
        func state(_ inMachine: Int, _ inTracks: Int) -> IR.Value { unsafe program.keepsState ? of(inMachine, ir.i8) : ir.load(ir.i8, ir.offset(tracks, inTracks), .run) }
        let fault = unsafe state(Run.fault, Tracks.fault)
        unsafe leave(Outcome.fault, fault)
        unsafe leave(Outcome.verdict, verdict(r0, fault))
        // Far places stand in the effect already.
        let written = unsafe program.unit.isReadOnly ? ir.word(0) : ir.load(ir.i64, ir.offset(tracks, Tracks.written), .run)
        if !program.unit.isReadOnly { unsafe leave(Outcome.first, written) }
        if program.recordsInMachine { unsafe join(run, state(Run.isPrepared, Tracks.isPrepared), context, effect, written) }
        guard program.mayRedirect else { return }
        unsafe copy(Outcome.redirectMap, ir.i64)
        unsafe copy(Outcome.redirectIndex, ir.i32)
        unsafe copy(Outcome.redirectFlags, ir.i64)
    }

    /// A number that means nothing is an abort.
    private func verdict(_ r0: IR.Value, _ fault: IR.Value) -> IR.Value {
        let value = unsafe ir.trunc(r0, ir.i32)
        let isVerdict = unsafe ir.compare(LLVMIntULE, value, ir.int(4))
        let isFine = unsafe ir.and(isVerdict, ir.equal(fault, ir.constant(ir.i8, 0)))
        return unsafe ir.select(isFine, ir.trunc(value, ir.i8), ir.constant(ir.i8, program.planted == .verdict ? 2 : 0))
    }

    /// What helpers did, where any was called that works on the machine.
    private func join(_ run: IR.Value, _ isPrepared: IR.Value, _ context: IR.Value, _ effect: IR.Value, _ written: IR.Value) {
        func of(_ offset: Int, _ kind: IR.Kind) -> IR.Value { unsafe ir.load(kind, ir.offset(run, offset), .run) }
        func leave(_ offset: Int, _ value: IR.Value) { unsafe ir.store(value, ir.offset(effect, offset), .run) }
        let helped = unsafe ir.newBlock("helped"), go = unsafe ir.newBlock("whole")
        unsafe ir.branch(ir.equal(isPrepared, ir.constant(ir.i8, 0)), go, helped)
        unsafe ir.position(at: helped)
        unsafe leave(Outcome.first, ir.or(written, of(Run.effect + Outcome.first, ir.i64)))
        let before = unsafe of(Run.effect + Outcome.before, ir.i32), known = unsafe ir.load(ir.i32, ir.offset(effect, Outcome.before), .run)
        unsafe leave(Outcome.before, ir.select(ir.below(known, before), before, known))
        let rest = unsafe ir.newBlock("rest"), all = unsafe ir.newBlock("all")
        let flags = unsafe ir.or(of(Run.effect + Outcome.looked, ir.i8), of(Run.effect + Outcome.cleared, ir.i8))
        let isMore = unsafe ir.notEqual(ir.or(ir.zext(flags, ir.i32), of(Run.effect + Outcome.restUpper, ir.i32)), ir.int(0))
        unsafe ir.branchRarely(isMore, rest, all)
        unsafe ir.position(at: rest)
        _ = unsafe ir.external("apus_join", ir.void, [(effect, ir.pointer), (run, ir.pointer)])
        unsafe ir.jump(all)
        unsafe ir.position(at: all)
        if program.mayAdjust {
            let data = unsafe of(Run.data, ir.i64), end = unsafe of(Run.end, ir.i64)
            let head = unsafe program.planted == .headDelta ? ir.int(0) : ir.trunc(ir.sub(data, of(Run.arrivalData, ir.i64)), ir.i32)
            unsafe leave(Outcome.headDelta, head)
            unsafe leave(Outcome.tailDelta, ir.trunc(ir.sub(end, of(Run.arrivalEnd, ir.i64)), ir.i32))
            for unsafe (offset, value) in unsafe [(Context.data, data), (Context.end, end), (Context.meta, of(Run.meta, ir.i64))] {
                unsafe ir.store(value, ir.offset(context, offset), .run)
            }
            unsafe leave(Outcome.lowestEnd, of(Run.effect + Outcome.lowestEnd, ir.i32))
            unsafe leave(Outcome.moved, of(Run.effect + Outcome.moved, ir.i8))
        }
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
    }
}

/// What of the `Machine` is filled in for the packet at hand. Nothing was moved yet.
@safe struct RunEmitter {
    private let ir: IR
    private let image: UInt64
    private let isPlaced: Bool
    private typealias Run = RunLayout.Run
    private typealias Context = RunLayout.Context
    private typealias Outcome = RunLayout.Outcome

    init(_ program: ProgramEmitter) {
        ir = program.ir
        image = program.unit.image
        isPlaced = program.keepsPlace
    }

    /// Where the packet lies.
    func place(_ run: IR.Value, _ context: IR.Value) {
        func of(_ offset: Int, _ kind: IR.Kind) -> IR.Value { unsafe ir.load(kind, ir.offset(context, offset), .run) }
        func set(_ offset: Int, _ value: IR.Value) { unsafe ir.store(value, ir.offset(run, offset), .run) }
        let data = unsafe of(Context.data, ir.i64)
        unsafe set(Run.data, data)
        unsafe set(Run.end, of(Context.end, ir.i64))
        unsafe set(Run.meta, of(Context.meta, ir.i64))
        unsafe set(Run.arrivalData, data)
    }

    /// What only helpers look at.
    func prepare(_ run: IR.Value, _ context: IR.Value) {
        func of(_ offset: Int, _ kind: IR.Kind) -> IR.Value { unsafe ir.load(kind, ir.offset(context, offset), .run) }
        func set(_ offset: Int, _ value: IR.Value) { unsafe ir.store(value, ir.offset(run, offset), .run) }
        if !isPlaced { unsafe self.place(run, context) }
        for (place, source) in [(Run.bufferStart, Context.bufferStart), (Run.bufferEnd, Context.bufferEnd), (Run.arrivalEnd, Context.end)] {
            unsafe set(place, of(source, ir.i64))
        }
        unsafe set(Run.isMultiBuffer, of(Context.isMultiBuffer, ir.i8))
        unsafe ir.copy(ir.offset(run, Run.arrival), context, bytes: Context.size, align: 8)
        unsafe ir.zero(ir.offset(run, Run.effect + Outcome.written), bytes: Outcome.writtenSize, align: 4)
        unsafe set(Run.effect + Outcome.lowestEnd, ir.int(0))
        for offset in [Outcome.moved, Outcome.looked, Outcome.cleared] { unsafe set(Run.effect + offset, ir.constant(ir.i8, 0)) }
        for offset in [Run.depth, Run.heldLock] { unsafe set(offset, ir.word(0)) }
        unsafe set(Run.image, ir.word(image))
        unsafe set(Run.budget, ir.word(Run.budgetMax))
        unsafe set(Run.isPrepared, ir.constant(ir.i8, 1))
    }
}
