internal import CLLVM
import EBPF

/// Helpers of verified programs that come down to a few instructions, so that no `Machine` is filled for them.
extension FunctionEmitter {
    private typealias Outcome = RunLayout.Outcome

    /// `bpf_redirect`: to an interface.
    func redirect() {
        let good = unsafe ir.newBlock("redirect"), go = unsafe ir.newBlock("redirected")
        let isPlain = unsafe ir.equal(register(2), ir.word(0))
        let index = unsafe register32(1)
        unsafe set(0, ir.select(isPlain, ir.word(4), ir.word(0)))
        unsafe ir.branch(isPlain, good, go)
        unsafe ir.position(at: good)
        unsafe leave(map: ir.word(0), index: index, flags: ir.word(0))
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
    }

    /// `bpf_redirect_map`, as `Machine.redirect`.
    /// - Returns: false, and nothing emitted, where the map is not known while compiling.
    func redirect(throughMapAt at: Int) -> Bool {
        guard let shape = map(1, at: at), shape.isOfTargets else { return false }
        let isDevices = shape.kind == .deviceArray || shape.kind == .deviceHash
        let broadcast: UInt64 = 1 << 3, excludeIngress: UInt64 = 1 << 4
        let map = unsafe register(1), index = unsafe register32(2), flags = unsafe register(3)
        let good = unsafe ir.newBlock("redirect"), go = unsafe ir.newBlock("redirected")
        let strange = unsafe program.planted == .redirectFlags ? ir.word(0) : ir.and(flags, ir.word(~(3 | (isDevices ? broadcast | excludeIngress : 0))))
        unsafe set(0, ir.word(0))
        unsafe ir.branchRarely(ir.notEqual(strange, ir.word(0)), go, good)

        unsafe ir.position(at: good)
        let found: IR.Value
        if shape.kind == .deviceHash {
            unsafe ir.store(index, scratch, .program)
            unsafe found = hashValue(shape, scratch)
        } else {
            unsafe found = target(shape, index)
        }
        var isTarget = unsafe ir.notEqual(found, ir.word(0))
        if isDevices { unsafe isTarget = ir.or(isTarget, ir.notEqual(ir.and(flags, ir.word(broadcast)), ir.word(0))) }
        let zero = unsafe ir.word(0)
        unsafe leave(map: ir.select(isTarget, map, zero), index: ir.select(isTarget, index, ir.int(0)), flags: ir.select(isTarget, flags, zero))
        unsafe set(0, ir.select(isTarget, ir.word(4), ir.and(flags, ir.word(3))))
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
        return true
    }

    private func leave(map: IR.Value, index: IR.Value, flags: IR.Value) {
        program.mayRedirect = true
        let effect = RunLayout.Run.effect
        unsafe setRunField(effect + Outcome.redirectMap, map)
        unsafe setRunField(effect + Outcome.redirectIndex, index)
        unsafe setRunField(effect + Outcome.redirectFlags, flags)
    }

    /// `bpf_perf_event_output` where nobody listens, which is most of the time; else the engine's helper.
    func eventOutput(_ at: Int) {
        guard let shape = map(2, at: at), shape.kind == .events else { return helper(25) }
        let slot = unsafe ir.newBlock("events"), silent = unsafe ir.newBlock("silent"), output = unsafe ir.newBlock("output"), go = unsafe ir.newBlock("go")
        let flags = unsafe register(3), packetBytes = unsafe ir.lshr(flags, ir.word(32))
        let linear = unsafe ir.sub(packetPlace(.end), packetPlace(.data))
        let isOrderly = unsafe program.planted == .eventSilence ? ir.flag(true) : ir.and(ir.compare(LLVMIntULE, packetBytes, ir.word(0xfffff)), ir.compare(LLVMIntULE, packetBytes, linear))
        let low = unsafe ir.and(flags, ir.word(0xffff_ffff))
        let index = unsafe ir.select(ir.equal(low, ir.word(0xffff_ffff)), processor(), low)
        unsafe ir.branch(ir.and(isOrderly, ir.below(index, ir.word(UInt64(shape.maxEntries)))), slot, output)

        unsafe ir.position(at: slot)
        let ring = unsafe ir.loadAtomic(ir.i64, ir.place(ir.add(ir.word(shape.table), ir.mul(index, ir.word(shape.stride)))), bytes: 8, LLVMAtomicOrderingAcquire)
        unsafe ir.branch(ir.equal(ring, ir.word(0)), silent, output)

        unsafe ir.position(at: silent)
        unsafe set(0, ir.word(-2))      // ENOENT
        unsafe ir.jump(go)
        unsafe ir.position(at: output)
        helper(25)
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
    }
}

extension MapShape {
    /// It holds what packets may be redirected to.
    var isOfTargets: Bool { [.deviceArray, .deviceHash, .processors, .sockets].contains(kind) }
}
