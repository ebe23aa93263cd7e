internal import CLLVM
import EBPF

/// Calls: subprograms, helpers with code of their own here, and the rest by the engine's entries.
extension FunctionEmitter {
    func call(_ i: DecodedInstruction, _ at: Int) throws(NotCompilable) {
        switch i.operation {
        case .callLocal: try callLocal(at + 1 + Int(i.offset))
        case .mapLookup: lookup(at)
        case .mapUpdate, .mapDelete: change(i, at)
        case .ktime: unsafe set(0, ir.external("apus_ktime", ir.i64, []))
        case .random: unsafe set(0, ir.external("apus_random", ir.i64, []))
        case .processor: unsafe set(0, processor())
        case .bufferLength:
            let behind = unsafe ir.load(ir.i64, ir.offset(track(ir.pointer, Tracks.context), RunLayout.Context.bytesBehind), .run)
            unsafe set(0, ir.add(ir.sub(packetPlace(.end), packetPlace(.data)), behind))
        case .csumDiff: checksumDifference(at)
        case .adjustHead: adjust("apus_adjust_head")
        case .adjustTail: adjust("apus_adjust_tail")
        case .adjustMeta: adjust("apus_adjust_meta")
        case .helper: helper(UInt64(UInt16(truncatingIfNeeded: i.immediate)), at)
        case .tailCall: tailCall(at)
        case .loop: loop()
        case .forEach: forEach(at)
        default: throw NotCompilable(reason: "instruction \(at): \(i.operation) has no translation")
        }
    }

    func processor() -> IR.Value {
        let offset = RunLayout.Run.processor
        guard offset != 0 else { return unsafe ir.external("apus_processor", ir.i64, []) }
        // The kernel keeps it up to date there (rseq), and glibc registers every thread.
        let thread = unsafe ir.intrinsic("llvm.thread.pointer", [], [])
        return unsafe ir.zext(ir.load(ir.i32, ir.offset(thread, offset), align: 4, nil), ir.i64)
    }

    /// Fills in what helpers look at in the `Machine`, once a packet: most runs of most programs get by without.
    private func prepare() {
        program.needsMachine = true
        // The sandbox looks there at any access.
        guard !unit.isSandboxed else { return }
        let fill = unsafe ir.newBlock("prepare"), go = unsafe ir.newBlock("prepared")
        let isPrepared = unsafe program.keepsState ? runField(ir.i8, RunLayout.Run.isPrepared) : track(ir.i8, Tracks.isPrepared)
        unsafe ir.branch(ir.equal(isPrepared, ir.constant(ir.i8, 0)), fill, go)
        unsafe ir.position(at: fill)
        unsafe RunEmitter(program).prepare(program.run, track(ir.pointer, Tracks.context))
        if !program.keepsState {
            unsafe setRunField(RunLayout.Run.fault, ir.constant(ir.i8, 0))
            unsafe setTrack(Tracks.isPrepared, ir.constant(ir.i8, 1))
        }
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
    }

    private func adjust(_ name: String) {
        prepare()
        unsafe set(0, ir.external(name, ir.i64, [(program.run, ir.pointer), (register(2), ir.i64)]))
    }

    private func helper(_ number: UInt64, _ at: Int) {
        guard !unit.isSandboxed else { return helper(number) }
        switch number {
        case 23: redirect()
        case 25: eventOutput(at)
        case 51 where redirect(throughMapAt: at): break
        case 69: unsafe set(0, ir.external("apus_fib_lookup", ir.i64, (2...4).map { unsafe (register($0), ir.i64) }))
        default: helper(number)
        }
    }

    /// Any helper: arguments and answer by the engine's registers.
    func helper(_ number: UInt64) {
        prepare()
        if number == 51 || number == 23 { program.mayRedirect = true }
        // bpf_xdp_store_bytes
        if number == 190 { program.recordsInMachine = true }
        let arguments = unsafe [(program.run, ir.pointer), (ir.word(number), ir.i64)] + (1...5).map { unsafe (register($0), ir.i64) }
        unsafe set(0, ir.external(unit.isSandboxed ? "apus_helper_checked" : "apus_helper", ir.i64, arguments))
        if !program.keepsState { unsafe setTrack(Tracks.fault, runField(ir.i8, RunLayout.Run.fault)) }
        checkStopped()
    }

    private func change(_ i: DecodedInstruction, _ at: Int) {
        // Verified code is believed, and needs no machine.
        guard !unit.isSandboxed else { return helper(i.operation == .mapUpdate ? 2 : 3) }
        if i.operation == .mapUpdate {
            unsafe set(0, ir.external("apus_update", ir.i64, (1...4).map { unsafe (register($0), ir.i64) }))
        } else {
            unsafe set(0, ir.external("apus_delete", ir.i64, (1...2).map { unsafe (register($0), ir.i64) }))
        }
    }

    // MARK: Functions of the program

    private func callLocal(_ entry: Int) throws(NotCompilable) {
        guard let function = unsafe program.functions[entry] else { throw NotCompilable(reason: "a call leads to \(entry), which is no function") }
        unsafe set(0, invoke(function, (1...5).map { unsafe register($0) }))
    }

    /// Calls a function of this program; sandbox: in the next frame, and the run may be over behind it.
    func invoke(_ function: IR.Value, _ arguments: [IR.Value]) -> IR.Value {
        let depth = unsafe unit.isSandboxed ? runField(ir.i64, RunLayout.Run.depth) : ir.word(0)
        if unit.isSandboxed {
            let deeper = unsafe ir.add(depth, ir.word(1))
            unsafe fault(unless: ir.below(deeper, ir.word(RunLayout.Run.framesMax)), .depth)
            unsafe setRunField(RunLayout.Run.depth, program.planted == .calleeFrame ? depth : deeper)
            let frame = unsafe ir.place(ir.add(runField(ir.i64, RunLayout.Run.frames), frameOffset(deeper)))
            if program.planted != .calleeFrame { unsafe ir.zero(frame, bytes: RunLayout.Run.frameBytes, align: 16) }
        }
        let result = unsafe ir.call(function, program.signature, [program.run, program.tracks] + arguments)
        if unit.isSandboxed {
            unsafe setRunField(RunLayout.Run.depth, depth)
            if program.hasTailCalls { unsafe setRunField(RunLayout.Run.image, ir.word(unit.image)) }
        }
        checkStopped()
        return unsafe result
    }

    // MARK: Tail calls

    private func tailCall(_ at: Int) {
        let run = RunLayout.Run.self
        let index = unsafe register32(3)
        let table: IR.Value, stride: IR.Value, count: IR.Value
        if let shape = map(2, at: at) {
            guard shape.kind == .programs else { return stop(.access) }
            unsafe (table, stride, count) = unsafe (ir.word(shape.table), ir.word(shape.stride), ir.constant(ir.i32, UInt64(shape.maxEntries)))
        } else {
            if unit.isSandboxed { checkMap(register: 2) }
            let map = unsafe ir.place(register(2)), layout = RunLayout.Map.self
            unsafe fault(unless: ir.equal(ir.load(ir.i8, ir.offset(map, layout.kind), .program), ir.constant(ir.i8, UInt64(MapKind.programs.rawValue))), .access)
            unsafe (table, stride) = unsafe (ir.load(ir.i64, ir.offset(map, layout.table), .program), ir.load(ir.i64, ir.offset(map, layout.stride), .program))
            unsafe count = ir.load(ir.i32, ir.offset(map, layout.maxEntries), .program)
        }
        let calls = unsafe runField(ir.i32, run.tailCalls)
        let limit = Int32(run.tailCallsMax + (program.planted == .tailCallLimit ? 1 : 0))
        let isAllowed = unsafe ir.and(ir.below(index, count), ir.below(calls, ir.int(limit)))
        let read = unsafe ir.newBlock("slot"), refused = unsafe ir.newBlock("refused"), found = unsafe ir.newBlock("found")
        unsafe ir.branch(isAllowed, read, refused)

        unsafe ir.position(at: read)
        let number = unsafe program.planted == .tailCallIndex ? ir.and(ir.zext(index, ir.i64), ir.word(1)) : ir.zext(index, ir.i64)
        let image = unsafe ir.loadAtomic(ir.i64, ir.place(ir.add(table, ir.mul(number, stride))), bytes: 8, LLVMAtomicOrderingAcquire)
        unsafe ir.branch(ir.notEqual(image, ir.word(0)), found, refused)

        unsafe ir.position(at: found)
        unsafe setRunField(run.tailCalls, ir.add(calls, ir.int(1)))
        // The first program's marks are for this one's looks, too, but for checksums nobody parsed.
        unsafe setTrack(Tracks.watched, ir.and(track(ir.i8, Tracks.watched), ir.constant(ir.i8, run.opaqueMarks)))
        // What the sandbox asks for a program's maps.
        unsafe setRunField(run.image, image)
        let words = unsafe ir.load(ir.i64, ir.place(ir.add(image, ir.word(RunLayout.Image.compiled))), .program)
        let code = unsafe ir.loadAtomic(ir.i64, ir.place(ir.add(words, ir.word(8))), bytes: 8, LLVMAtomicOrderingAcquire)
        let jump = unsafe ir.newBlock("jump"), interpret = unsafe ir.newBlock("interpret")
        unsafe ir.branchRarely(ir.equal(code, ir.word(0)), interpret, jump)

        unsafe ir.position(at: jump)
        let zero = unsafe ir.word(0)
        let call = unsafe ir.call(ir.place(code), program.signature, [program.run, program.tracks, ir.word(run.context), zero, zero, zero, zero])
        unsafe ir.mustTail(call)
        unsafe ir.ret(call)

        unsafe ir.position(at: interpret)
        prepare()
        unsafe setRunField(run.watched, track(ir.i8, Tracks.watched))
        unsafe ir.ret(ir.external("apus_tail", ir.i64, [(program.run, ir.pointer), (image, ir.i64)]))

        unsafe ir.position(at: refused)
        unsafe set(0, ir.word(-2))      // ENOENT
    }

    /// Sandbox: stops the run unless the register holds one of the program's maps.
    func checkMap(register number: Int) {
        let answer = unsafe ir.external("apus_is_map", ir.i32, [(program.run, ir.pointer), (register(number), ir.i64)])
        unsafe fault(unless: ir.notEqual(answer, ir.int(0)), .access)
    }

    // MARK: Checksums

    /// `bpf_csum_diff`: small sizes that are known become a few additions.
    private func checksumDifference(_ at: Int) {
        if unit.isSandboxed {
            for (pointer, size) in [(1, 2), (3, 4)] {
                guard known(size, at: at) != 0 else { continue }
                if let bytes = known(size, at: at), bytes <= 512, isOwnFrame(pointer, 0, bytes: Int(bytes), at: at) { continue }
                let bytes = unsafe ir.and(register(size), ir.word(0xffff_ffff))
                let some = unsafe ir.newBlock("some"), go = unsafe ir.newBlock("none")
                unsafe ir.branch(ir.equal(bytes, ir.word(0)), go, some)
                unsafe ir.position(at: some)
                unsafe check(register(pointer), bytes, writes: false)
                unsafe ir.jump(go)
                unsafe ir.position(at: go)
            }
        }
        guard let from = known(2, at: at), let to = known(4, at: at), from <= 64, to <= 64 else {
            return unsafe set(0, ir.external("apus_csum_diff", ir.i64, (1...5).map { unsafe (register($0), ir.i64) }))
        }
        let seed = unsafe program.planted == .checksumSeed ? ir.int(0) : register32(5)
        let minusOne = unsafe ir.int(-1)
        let result: IR.Value
        if from != 0 && to != 0 {
            unsafe result = carried(sum(3, Int(to), seed, at), ir.xor(sum(1, Int(from), ir.int(0), at), minusOne))
        } else if to != 0 {
            unsafe result = sum(3, Int(to), seed, at)
        } else if from != 0 {
            unsafe result = ir.xor(sum(1, Int(from), ir.xor(seed, minusOne), at), minusOne)
        } else {
            unsafe result = unsafe seed
        }
        func fold(_ value: IR.Value) -> IR.Value { unsafe ir.add(ir.and(value, ir.int(0xffff)), ir.lshr(value, ir.int(16))) }
        unsafe set(0, ir.zext(fold(fold(result)), ir.i64))
    }

    /// As `Helpers.sum`: 32-bit words in memory order, the last padded with zeros.
    private func sum(_ pointer: Int, _ count: Int, _ seed: IR.Value, _ at: Int) -> IR.Value {
        var total = unsafe ir.zext(seed, ir.i64)
        func add(_ kind: IR.Kind, _ offset: Int, bytes: Int, shift: Int) {
            let part = unsafe ir.zext(ir.load(kind, place(pointer, offset, bytes: bytes, at: at), .program), ir.i64)
            unsafe total = ir.add(total, ir.shl(part, ir.word(shift)))
        }
        var offset = 0
        while offset + 4 <= count {
            unsafe add(ir.i32, offset, bytes: 4, shift: 0)
            offset += 4
        }
        for (place, byte) in (offset..<count).enumerated() { unsafe add(ir.i8, byte, bytes: 1, shift: 8 * place) }
        return unsafe carried(ir.trunc(total, ir.i32), ir.trunc(ir.lshr(total, ir.word(32)), ir.i32))
    }

    /// Addition with end-around carry.
    private func carried(_ a: IR.Value, _ b: IR.Value) -> IR.Value {
        let sum = unsafe ir.add(a, b)
        return unsafe ir.add(sum, ir.zext(ir.below(sum, a), ir.i32))
    }
}
