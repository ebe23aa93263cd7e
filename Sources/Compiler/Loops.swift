internal import CLLVM
import EBPF

/// Helpers that call functions of the program: `bpf_loop`, `bpf_for_each_map_elem`. The calls are direct.
extension FunctionEmitter {
    /// Calls the function whose place `callback` holds. What it returned; control goes on in the current block.
    private func callBack(_ callback: IR.Value, _ arguments: [IR.Value]) -> IR.Value {
        let done = unsafe ir.newBlock("back"), nobody = unsafe ir.newBlock("nobody")
        var cases: [(IR.Value, IR.Block)] = unsafe [], results: [(IR.Value, IR.Block)] = unsafe []
        let from = unsafe ir.currentBlock
        for entry in program.callbacks {
            guard let function = unsafe program.functions[entry] else { continue }
            let block = unsafe ir.newBlock("callback")
            unsafe cases.append((ir.word(entry), block))
            unsafe ir.position(at: block)
            let result = unsafe invoke(function, arguments + [IR.Value](repeating: ir.word(0), count: 5 - arguments.count))
            unsafe results.append((result, ir.currentBlock))
            unsafe ir.jump(done)
        }
        unsafe ir.position(at: from)
        unsafe ir.choose(callback, cases, otherwise: nobody)
        unsafe ir.position(at: nobody)
        stop(.access)
        unsafe ir.position(at: done)
        if unsafe results.isEmpty { return unsafe ir.word(0) }
        return unsafe ir.phi(ir.i64, results)
    }

    func loop() {
        let count = unsafe ir.and(register(1), ir.word(0xffff_ffff)), callback = unsafe register(2), context = unsafe register(3)
        let start = unsafe ir.newBlock("loop"), refused = unsafe ir.newBlock("refused"), done = unsafe ir.newBlock("done")
        let body = unsafe ir.newBlock("body"), head = unsafe ir.newBlock("head")
        let hasFlags = unsafe ir.notEqual(register(4), ir.word(0))
        let isTooMany = unsafe ir.compare(LLVMIntUGT, count, ir.word(8 << 20))
        unsafe ir.branchRarely(ir.or(hasFlags, isTooMany), refused, start)
        unsafe ir.position(at: refused)
        unsafe set(0, ir.select(hasFlags, ir.word(-22), ir.word(-7)))      // EINVAL, E2BIG
        unsafe ir.jump(done)

        unsafe ir.position(at: start)
        unsafe ir.jump(head)
        unsafe ir.position(at: head)
        let index = unsafe ir.phi(ir.i64, [(ir.word(0), start)])
        unsafe set(0, index)
        unsafe ir.branch(ir.below(index, count), body, done)
        unsafe ir.position(at: body)
        let answer = unsafe callBack(callback, [index, context])
        let next = unsafe ir.add(index, ir.word(1))
        unsafe ir.add(index, next, ir.currentBlock)
        unsafe set(0, program.planted == .loopCount ? index : next)
        unsafe ir.branch(ir.equal(answer, ir.word(0)), head, done)
        unsafe ir.position(at: done)
    }

    func forEach(_ at: Int) {
        let shape = map(1, at: at)
        if unit.isSandboxed && shape == nil { checkMap(register: 1) }
        let map = unsafe register(1), callback = unsafe register(2), context = unsafe register(3)
        let kind = unsafe shape.map { unsafe ir.constant(ir.i8, UInt64($0.kind.rawValue)) }
            ?? ir.load(ir.i8, ir.offset(ir.place(map), RunLayout.Map.kind), .program)
        func isKind(_ wanted: MapKind) -> IR.Value { unsafe ir.equal(kind, ir.constant(ir.i8, UInt64(wanted.rawValue))) }
        let array = unsafe ir.newBlock("array"), hash = unsafe ir.newBlock("hash"), other = unsafe ir.newBlock("other")
        let refused = unsafe ir.newBlock("refused"), start = unsafe ir.newBlock("each"), done = unsafe ir.newBlock("done")
        unsafe ir.branchRarely(ir.notEqual(register(4), ir.word(0)), refused, start)
        unsafe ir.position(at: refused)
        unsafe set(0, ir.word(-22))
        unsafe ir.jump(done)
        unsafe ir.position(at: start)
        let count = unsafe ir.external("apus_each_count", ir.i64, [(map, ir.i64)])
        unsafe ir.branch(isKind(.array), array, other)
        unsafe ir.position(at: other)
        unsafe ir.branch(ir.or(isKind(.hash), isKind(.lruHash)), hash, refused)
        unsafe ir.position(at: array)
        unsafe eachOfArray(map, count, callback, context, done)
        unsafe ir.position(at: hash)
        unsafe eachOfHash(map, count, callback, context, done)
        unsafe ir.position(at: done)
    }

    private func eachOfArray(_ map: IR.Value, _ count: IR.Value, _ callback: IR.Value, _ context: IR.Value, _ done: IR.Block) {
        let before = unsafe ir.currentBlock, head = unsafe ir.newBlock("head"), body = unsafe ir.newBlock("body")
        // Sandbox: where the engine shows keys, since that is where it allows reading them.
        let key = unsafe unit.isSandboxed
            ? ir.place(ir.add(runField(ir.i64, RunLayout.Run.saved), ir.add(ir.mul(runField(ir.i64, RunLayout.Run.depth), ir.word(64)), ir.word(56))))
            : scratch
        unsafe ir.jump(head)
        unsafe ir.position(at: head)
        let index = unsafe ir.phi(ir.i64, [(ir.word(0), before)])
        unsafe set(0, index)
        unsafe ir.branch(ir.below(index, count), body, done)
        unsafe ir.position(at: body)
        unsafe ir.store(index, key, align: 8, .program)
        let value = unsafe ir.external("apus_lookup", ir.i64, [(map, ir.i64), (ir.address(key), ir.i64)])
        let answer = unsafe callBack(callback, [map, ir.address(key), value, context])
        let next = unsafe ir.add(index, ir.word(1))
        unsafe ir.add(index, next, ir.currentBlock)
        unsafe set(0, next)
        unsafe ir.branch(ir.equal(answer, ir.word(0)), head, done)
    }

    /// The engine walks the chains; `scratch` holds where it is, and what it found.
    private func eachOfHash(_ map: IR.Value, _ count: IR.Value, _ callback: IR.Value, _ context: IR.Value, _ done: IR.Block) {
        let before = unsafe ir.currentBlock, head = unsafe ir.newBlock("head"), chain = unsafe ir.newBlock("chain")
        let body = unsafe ir.newBlock("body"), node = unsafe ir.newBlock("node"), over = unsafe ir.newBlock("over")
        unsafe set(0, ir.word(0))
        unsafe ir.jump(head)
        unsafe ir.position(at: head)
        let bucket = unsafe ir.phi(ir.i64, [(ir.word(0), before)])
        unsafe ir.branch(ir.below(bucket, count), body, done)
        unsafe ir.position(at: body)
        unsafe ir.store(ir.int(-1), scratch, align: 4, .program)
        unsafe ir.jump(chain)
        unsafe ir.position(at: chain)
        let found = unsafe ir.offset(scratch, 8)
        let isThere = unsafe ir.external("apus_each_next", ir.i64, [(map, ir.i64), (bucket, ir.i64), (ir.address(scratch), ir.i64), (ir.address(found), ir.i64)])
        unsafe ir.branch(ir.notEqual(isThere, ir.word(0)), node, over)
        unsafe ir.position(at: node)
        let key = unsafe ir.load(ir.i64, found, align: 8, .program), value = unsafe ir.load(ir.i64, ir.offset(found, 8), align: 8, .program)
        let answer = unsafe callBack(callback, [map, key, value, context])
        unsafe set(0, ir.add(register(0), ir.word(1)))
        unsafe ir.branch(ir.equal(answer, ir.word(0)), chain, done)
        unsafe ir.position(at: over)
        unsafe ir.add(bucket, ir.add(bucket, ir.word(1)), ir.currentBlock)
        unsafe ir.jump(head)
    }
}
