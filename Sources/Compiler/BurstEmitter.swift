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
        unsafe begin(run, tracks, context)
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

    private func begin(_ run: IR.Value, _ tracks: IR.Value, _ context: IR.Value) {
        func of(_ offset: Int, _ kind: IR.Kind) -> IR.Value { unsafe ir.load(kind, ir.offset(context, offset), .run) }
        func set(_ offset: Int, _ value: IR.Value) { unsafe ir.store(value, ir.offset(run, offset), .run) }
        if program.keepsPlace { unsafe RunEmitter(program).place(run, context) }
        if program.recordsInMachine {
            for offset in [Outcome.below, Outcome.from] { unsafe empty(run, Run.effect + offset) }
            unsafe set(Run.effect + Outcome.lowestEnd, ir.int(0))
            for offset in [Outcome.moved, Outcome.looked, Outcome.cleared] { unsafe set(Run.effect + offset, ir.constant(ir.i8, 0)) }
        }
        if program.mayRedirect {
            unsafe set(Run.effect + Outcome.redirectIndex, ir.int(0))
            for offset in [Outcome.redirectMap, Outcome.redirectFlags] { unsafe set(Run.effect + offset, ir.word(0)) }
        }
        if program.hasTailCalls { unsafe set(Run.tailCalls, ir.int(0)) }
        unsafe set(Run.fault, ir.constant(ir.i8, 0))
        if program.planted != .staleMachine { unsafe set(Run.isPrepared, ir.constant(ir.i8, 0)) }
        if program.unit.isSandboxed {
            unsafe RunEmitter(program).prepare(run, context)
            unsafe ir.zero(ir.place(ir.load(ir.i64, ir.offset(run, Run.frames), .run)), bytes: Run.frameBytes, align: 16)
        }
        unsafe ir.store(context, ir.offset(tracks, Tracks.context), .run)
        unsafe ir.store(of(Context.watched, ir.i8), ir.offset(tracks, Tracks.watched), .run)
        for offset in [Tracks.looked, Tracks.cleared] { unsafe ir.store(ir.constant(ir.i8, 0), ir.offset(tracks, offset), .run) }
        for number in program.hulls.sorted() { unsafe empty(tracks, Tracks.fixed + 8 * number) }
        if program.recordsAnywhere { for offset in [Tracks.below, Tracks.from] { unsafe empty(tracks, offset) } }
    }

    private func empty(_ record: IR.Value, _ offset: Int) {
        unsafe ir.store(ir.int(.max), ir.offset(record, offset), .run)
        unsafe ir.store(ir.int(.min), ir.offset(record, offset + 4), .run)
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
        let fault = unsafe of(Run.fault, ir.i8)
        // What is not left below: in a few wide stores.
        unsafe ir.zero(effect, bytes: Outcome.size, align: 8)
        unsafe leave(Outcome.fault, fault)
        unsafe leave(Outcome.verdict, verdict(r0, fault))
        unsafe ranges(run, tracks, context, effect)
        for (offset, own) in [(Outcome.looked, Tracks.looked), (Outcome.cleared, Tracks.cleared)] {
            let here = unsafe ir.load(ir.i8, ir.offset(tracks, own), .run)
            unsafe leave(offset, program.recordsInMachine ? ir.or(here, of(Run.effect + offset, ir.i8)) : here)
        }
        if program.mayAdjust {
            let moved = unsafe ir.newBlock("adjusted"), go = unsafe ir.newBlock("whole")
            unsafe ir.branch(ir.equal(of(Run.isPrepared, ir.i8), ir.constant(ir.i8, 0)), go, moved)
            unsafe ir.position(at: moved)
            let data = unsafe of(Run.data, ir.i64), end = unsafe of(Run.end, ir.i64)
            let head = unsafe program.planted == .headDelta ? ir.int(0) : ir.trunc(ir.sub(data, of(Run.arrivalData, ir.i64)), ir.i32)
            unsafe leave(Outcome.headDelta, head)
            unsafe leave(Outcome.tailDelta, ir.trunc(ir.sub(end, of(Run.arrivalEnd, ir.i64)), ir.i32))
            for unsafe (offset, value) in unsafe [(Context.data, data), (Context.end, end), (Context.meta, of(Run.meta, ir.i64))] {
                unsafe ir.store(value, ir.offset(context, offset), .run)
            }
            unsafe copy(Outcome.lowestEnd, ir.i32)
            unsafe copy(Outcome.moved, ir.i8)
            unsafe ir.jump(go)
            unsafe ir.position(at: go)
        }
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

    /// Joins what was tracked here with what helpers recorded.
    private func ranges(_ run: IR.Value, _ tracks: IR.Value, _ context: IR.Value, _ effect: IR.Value) {
        guard !program.unit.isReadOnly else { return unsafe join(run, tracks, effect, below: [], from: [], distance: nil) }
        guard !program.hulls.isEmpty else { return unsafe join(run, tracks, effect, below: [], from: [], distance: nil, hasOwn: true) }
        let l3 = unsafe ir.trunc(ir.load(ir.i64, ir.offset(context, Context.l3Offset), .run), ir.i32)
        let distance = unsafe ir.sub(l3, ir.int(Tracks.plainL3))
        let go = unsafe ir.newBlock("tracked")
        if program.hulls.isDisjoint(with: [1, 2]) {
            // In front of any L3 header that at most two tags precede, or behind it.
            let here = unsafe ir.newBlock("l3near"), elsewhere = unsafe ir.newBlock("l3far")
            unsafe ir.branchRarely(ir.compare(LLVMIntUGT, distance, ir.int(Tracks.bounds[3] - Tracks.plainL3)), elsewhere, here)
            unsafe ir.position(at: here)
            unsafe join(run, tracks, effect, below: [0], from: [3], distance: distance, hasOwn: true)
            unsafe ir.jump(go)
            unsafe ir.position(at: elsewhere)
        } else {
            // Each hull lies on one side of an L3 header behind no tag, one, or two.
            for (number, place) in Tracks.bounds.enumerated().dropFirst().dropLast() {
                let here = unsafe ir.newBlock("l3at\(place)"), elsewhere = unsafe ir.newBlock("l3elsewhere")
                unsafe ir.branch(ir.equal(l3, ir.int(place)), here, elsewhere)
                unsafe ir.position(at: here)
                unsafe join(run, tracks, effect, below: Array(0..<number), from: Array(number..<4), distance: place == Tracks.plainL3 ? nil : distance, hasOwn: true)
                unsafe ir.jump(go)
                unsafe ir.position(at: elsewhere)
            }
        }
        if !program.recordsAnywhere { for offset in [Tracks.below, Tracks.from] { unsafe empty(tracks, offset) } }
        for number in program.hulls.sorted() {
            let (lower, upper) = unsafe bounds(tracks, Tracks.fixed + 8 * number)
            let isSome = unsafe ir.compare(LLVMIntSLT, lower, upper)
            unsafe TrackEmitter(ir).record(tracks, ir.sub(lower, distance), ir.sub(upper, distance), if: isSome)
        }
        unsafe join(run, tracks, effect, below: [], from: [], distance: nil, hasOwn: true, isAnywhere: true)
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
    }

    /// Leaves both ranges, with these hulls of `Tracks.fixed` in them, moved by where the L3 header is.
    private func join(_ run: IR.Value, _ tracks: IR.Value, _ effect: IR.Value, below: [Int], from: [Int], distance: IR.Value?, hasOwn: Bool = false, isAnywhere: Bool = false) {
        for (offset, own, hulls) in [(Outcome.below, Tracks.below, below), (Outcome.from, Tracks.from, from)] {
            var (lower, upper) = unsafe (ir.int(.max), ir.int(.min))
            func include(_ other: (IR.Value, IR.Value)) { unsafe (lower, upper) = unsafe (ir.signedMin(lower, other.0), ir.signedMax(upper, other.1)) }
            let hulls = hulls.filter(program.hulls.contains)
            for number in hulls { unsafe include(bounds(tracks, Tracks.fixed + 8 * number)) }
            if let distance = unsafe distance, !hulls.isEmpty {
                let isSome = unsafe ir.compare(LLVMIntSLT, lower, upper)
                unsafe (lower, upper) = unsafe (ir.select(isSome, ir.sub(lower, distance), lower), ir.select(isSome, ir.sub(upper, distance), upper))
            }
            if hasOwn, program.recordsAnywhere || isAnywhere { unsafe include(bounds(tracks, own)) }
            if program.recordsInMachine { unsafe include(bounds(run, Run.effect + offset)) }
            // As one: a locked counter waits for every store before it.
            let both = unsafe ir.or(ir.zext(lower, ir.i64), ir.shl(ir.zext(upper, ir.i64), ir.word(32)))
            unsafe ir.store(both, ir.offset(effect, offset), align: 4, .run)
        }
    }

    private func bounds(_ record: IR.Value, _ offset: Int) -> (IR.Value, IR.Value) {
        unsafe (ir.load(ir.i32, ir.offset(record, offset), .run), ir.load(ir.i32, ir.offset(record, offset + 4), .run))
    }
}

/// What of the `Machine` is filled in for the packet at hand. Nothing was moved yet.
@safe struct RunEmitter {
    private let ir: IR
    private let image: UInt64
    private let isPlaced: Bool
    private typealias Run = RunLayout.Run
    private typealias Context = RunLayout.Context

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
        unsafe set(Run.arrivalL3, ir.add(data, of(Context.l3Offset, ir.i64)))
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
        for offset in [Run.depth, Run.heldLock] { unsafe set(offset, ir.word(0)) }
        unsafe set(Run.image, ir.word(image))
        unsafe set(Run.budget, ir.word(Run.budgetMax))
        unsafe set(Run.isPrepared, ir.constant(ir.i8, 1))
    }
}
