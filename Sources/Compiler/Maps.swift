internal import CLLVM
import EBPF

/// `bpf_map_lookup_elem`, inline where the map is known while compiling.
extension FunctionEmitter {
    func lookup(_ at: Int) {
        let kinds: [MapKind] = [.array, .hash, .lruHash, .mapArray, .mapHash]
        guard let shape = map(1, at: at), kinds.contains(shape.kind) || shape.isOfTargets else { return lookupElsewhere(at) }
        check(argument: 2, bytes: shape.keySize, at: at)
        let key = unsafe place(2, bytes: shape.keySize, at: at)
        switch shape.kind {
        case .array: unsafe set(0, arrayValue(shape, key))
        case .mapArray: unsafe set(0, inner(arrayValue(shape, key)))
        case .mapHash: unsafe set(0, inner(hashValue(shape, key)))
        case .deviceArray, .processors, .sockets: unsafe set(0, target(shape, ir.load(ir.i32, key, .program)))
        default: unsafe set(0, hashValue(shape, key))
        }
    }

    private func lookupElsewhere(_ at: Int) {
        if unit.isSandboxed {
            if let shape = map(1, at: at) {
                check(argument: 2, bytes: shape.keySize, at: at)
            } else {
                checkMap(register: 1)
                let size = unsafe ir.external("apus_key_size", ir.i64, [(register(1), ir.i64)])
                unsafe check(register(2), size, writes: false)
            }
        }
        unsafe set(0, ir.external("apus_lookup", ir.i64, [(register(1), ir.i64), (register(2), ir.i64)]))
    }

    /// Bytes from CPU 0's value to this CPU's.
    private func ownCPU(_ shape: MapShape) -> IR.Value {
        let last = unsafe ir.word(UInt64(shape.cpuCount) - 1), cpu = unsafe processor()
        return unsafe ir.mul(ir.select(ir.below(cpu, last), cpu, last), ir.word(shape.cpuStride))
    }

    /// The map that stands at `value`, if one does.
    private func inner(_ value: IR.Value) -> IR.Value {
        let there = unsafe ir.newBlock("there"), go = unsafe ir.newBlock("inner"), before = unsafe ir.currentBlock
        unsafe ir.branch(ir.notEqual(value, ir.word(0)), there, go)
        unsafe ir.position(at: there)
        let map = unsafe ir.loadAtomic(ir.i64, ir.place(value), bytes: 8, LLVMAtomicOrderingAcquire)
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
        return unsafe ir.phi(ir.i64, [(ir.word(0), before), (map, there)])
    }

    /// The entry of a container of targets, if it is filled.
    func target(_ shape: MapShape, _ index: IR.Value) -> IR.Value {
        let there = unsafe ir.newBlock("there"), go = unsafe ir.newBlock("target"), before = unsafe ir.currentBlock
        let entry = unsafe arrayValue(shape, index: index)
        unsafe ir.branch(ir.notEqual(entry, ir.word(0)), there, go)
        unsafe ir.position(at: there)
        let isFilled = unsafe ir.notEqual(ir.load(ir.i64, ir.place(ir.add(entry, ir.word(8))), .program), ir.word(0))
        let found = unsafe program.planted == .emptyTarget ? entry : ir.select(isFilled, entry, ir.word(0))
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
        return unsafe ir.phi(ir.i64, [(ir.word(0), before), (found, there)])
    }

    private func arrayValue(_ shape: MapShape, _ key: IR.Value) -> IR.Value { unsafe arrayValue(shape, index: ir.load(ir.i32, key, .program)) }

    private func arrayValue(_ shape: MapShape, index: IR.Value) -> IR.Value {
        let count = unsafe ir.constant(ir.i32, UInt64(shape.maxEntries))
        let isThere = unsafe program.planted == .arrayBound ? ir.compare(LLVMIntULE, index, count) : ir.below(index, count)
        var value = unsafe ir.add(ir.word(shape.table), ir.mul(ir.zext(index, ir.i64), ir.word(shape.stride)))
        if shape.cpuStride != 0 { unsafe value = ir.add(value, ownCPU(shape)) }
        return unsafe ir.select(isThere, value, ir.word(0))
    }

    // MARK: Hashes

    /// As `MapStorage.search`: one walk of the chain here; where a writer may have led it astray, the engine looks again.
    func hashValue(_ shape: MapShape, _ key: IR.Value) -> IR.Value {
        let chain = unsafe ir.newBlock("chain"), compare = unsafe ir.newBlock("node"), bytes = unsafe ir.newBlock("key")
        let hit = unsafe ir.newBlock("hit"), further = unsafe ir.newBlock("next"), end = unsafe ir.newBlock("end")
        let again = unsafe ir.newBlock("again"), done = unsafe ir.newBlock("found")
        let order = LLVMAtomicOrderingAcquire
        let endMark: UInt64 = 0x8000_0000

        let hash = unsafe hash(shape, key)
        let before = unsafe ir.loadAtomic(ir.i32, ir.place(ir.word(shape.changes)), bytes: 4, order)
        let bucket = unsafe ir.and(hash, ir.constant(ir.i32, UInt64(shape.bucketMask)))
        let first = unsafe ir.loadAtomic(ir.i32, ir.place(ir.add(ir.word(shape.buckets), ir.shl(ir.zext(bucket, ir.i64), ir.word(2)))), bytes: 4, order)
        let start = unsafe ir.currentBlock
        unsafe ir.jump(chain)

        unsafe ir.position(at: chain)
        let link = unsafe ir.phi(ir.i32, [(first, start)])
        unsafe ir.branch(ir.below(link, ir.constant(ir.i32, endMark)), compare, end)

        unsafe ir.position(at: compare)
        let node = unsafe ir.place(ir.add(ir.word(shape.table), ir.mul(ir.zext(link, ir.i64), ir.word(shape.stride))))
        unsafe ir.branch(ir.equal(ir.load(ir.i32, ir.offset(node, 4), .program), hash), bytes, further)

        unsafe ir.position(at: bytes)
        let isSame = unsafe isEqual(ir.offset(node, 8), key, count: shape.keySize)
        unsafe ir.branch(isSame, hit, further)

        unsafe ir.position(at: further)
        let next = unsafe ir.loadAtomic(ir.i32, node, bytes: 4, order)
        unsafe ir.add(link, next, ir.currentBlock)
        unsafe ir.jump(chain)

        unsafe ir.position(at: end)
        let isWhole = unsafe ir.and(ir.equal(link, ir.or(bucket, ir.constant(ir.i32, endMark))),
                                    ir.equal(ir.loadAtomic(ir.i32, ir.place(ir.word(shape.changes)), bytes: 4, order), before))
        let missEnd = unsafe ir.currentBlock
        unsafe ir.branchRarely(ir.xor(isWhole, ir.flag(true)), again, done)

        unsafe ir.position(at: again)
        let other = unsafe ir.external("apus_lookup", ir.i64, [(register(1), ir.i64), (ir.address(key), ir.i64)])
        unsafe ir.jump(done)

        unsafe ir.position(at: hit)
        let value = unsafe nodeValue(shape, link), hitEnd = unsafe ir.currentBlock
        unsafe ir.jump(done)

        unsafe ir.position(at: done)
        return unsafe ir.phi(ir.i64, [(ir.word(0), missEnd), (other, again), (value, hitEnd)])
    }

    private func nodeValue(_ shape: MapShape, _ link: IR.Value) -> IR.Value {
        let number = unsafe ir.zext(link, ir.i64)
        if shape.kind == .lruHash, program.planted != .lruUse {
            // `MapStorage.used`: a store only where it changes something, for the cache line's sake.
            let recency = unsafe ir.place(ir.add(ir.word(shape.recency), number))
            let mark = unsafe ir.newBlock("use"), go = unsafe ir.newBlock("used")
            let used = unsafe ir.constant(ir.i8, 2)
            unsafe ir.branch(ir.below(ir.loadAtomic(ir.i8, recency, bytes: 1, LLVMAtomicOrderingMonotonic), used), mark, go)
            unsafe ir.position(at: mark)
            unsafe ir.storeAtomic(used, recency, bytes: 1, LLVMAtomicOrderingMonotonic)
            unsafe ir.jump(go)
            unsafe ir.position(at: go)
        }
        if shape.cpuStride == 0 {
            return unsafe ir.add(ir.word(shape.table + UInt64(shape.valueOffset)), ir.mul(number, ir.word(shape.stride)))
        }
        let value = unsafe ir.add(ir.word(shape.cpuValues), ir.mul(number, ir.word((shape.valueSize + 7) & ~7)))
        return unsafe ir.add(value, ownCPU(shape))
    }

    /// As `MapStorage.hash`.
    private func hash(_ shape: MapShape, _ key: IR.Value) -> IR.Value {
        var state = unsafe ir.word(program.planted == .hashSeed ? 0 : shape.seed)
        var at = 0
        while at + 8 <= shape.keySize {
            unsafe state = mix(ir.xor(state, ir.load(ir.i64, ir.offset(key, at), .program)))
            at += 8
        }
        var rest = unsafe ir.word(0)
        while at < shape.keySize {
            let byte = unsafe ir.zext(ir.load(ir.i8, ir.offset(key, at), .program), ir.i64)
            unsafe rest = program.planted == .hashRest ? ir.or(rest, ir.shl(byte, ir.word(8 * (at % 8)))) : ir.or(ir.shl(rest, ir.word(8)), byte)
            at += 1
        }
        unsafe state = mix(ir.xor(state, rest))
        return unsafe ir.trunc(ir.xor(state, ir.lshr(state, ir.word(32))), ir.i32)
    }

    private func mix(_ value: IR.Value) -> IR.Value {
        let product = unsafe ir.mul(ir.zext(value, ir.i128), ir.constant(ir.i128, 0x9e37_79b9_7f4a_7c15))
        return unsafe ir.xor(ir.trunc(ir.lshr(product, ir.constant(ir.i128, 64)), ir.i64), ir.trunc(product, ir.i64))
    }

    private func isEqual(_ a: IR.Value, _ b: IR.Value, count: Int) -> IR.Value {
        var difference = unsafe ir.word(0)
        var at = 0
        for unsafe (bytes, kind) in unsafe [(8, ir.i64), (4, ir.i32), (2, ir.i16), (1, ir.i8)] {
            while at + bytes <= count {
                let x = unsafe ir.load(kind, ir.offset(a, at), .program), y = unsafe ir.load(kind, ir.offset(b, at), .program)
                let part = unsafe ir.xor(x, y)
                unsafe difference = ir.or(difference, bytes == 8 ? part : ir.zext(part, ir.i64))
                at += bytes
            }
        }
        return unsafe ir.equal(difference, ir.word(0))
    }
}
