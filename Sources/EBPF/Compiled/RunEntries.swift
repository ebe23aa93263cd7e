internal import CBPF

/// What compiled code calls: the engine's own helpers, as C functions. `run` points to the burst's `Machine`.
///
/// A helper that stops the program leaves the reason in the machine's `fault`; only unverified programs are stopped.
package enum RunEntries {
    /// By the name compiled code has for it.
    package static var all: [(name: String, address: UInt64)] {
        unsafe [
            ("apus_begin", address(unsafe apusRunBegin as @convention(c) (UnsafeMutableRawPointer, UInt64, UnsafeRawPointer) -> Void)),
            ("apus_leave", address(unsafe apusRunLeave as @convention(c) (UnsafeMutableRawPointer) -> Void)),
            ("apus_look", address(unsafe apusRunLook as @convention(c) (UnsafeRawPointer, UInt32, UInt64, UInt64) -> UInt32)),
            ("apus_wrote", address(unsafe apusRunWrote as @convention(c) (UnsafeMutableRawPointer, UInt64, UInt64) -> UInt64)),
            ("apus_join", address(unsafe apusRunJoin as @convention(c) (UnsafeMutableRawPointer, UnsafeRawPointer) -> Void)),
            ("apus_may_touch", address(unsafe apusRunMayTouch as @convention(c) (UnsafeRawPointer, UInt64, UInt64, UInt32) -> UInt32)),
            ("apus_is_map", address(unsafe apusRunIsMap as @convention(c) (UnsafeRawPointer, UInt64) -> UInt32)),
            ("apus_adjust_head", address(unsafe apusRunAdjustHead as @convention(c) (UnsafeMutableRawPointer, UInt64) -> UInt64)),
            ("apus_adjust_tail", address(unsafe apusRunAdjustTail as @convention(c) (UnsafeMutableRawPointer, UInt64) -> UInt64)),
            ("apus_adjust_meta", address(unsafe apusRunAdjustMeta as @convention(c) (UnsafeMutableRawPointer, UInt64) -> UInt64)),
            ("apus_lookup", address(apusRunLookup as @convention(c) (UInt64, UInt64) -> UInt64)),
            ("apus_update", address(apusRunUpdate as @convention(c) (UInt64, UInt64, UInt64, UInt64) -> UInt64)),
            ("apus_delete", address(apusRunDelete as @convention(c) (UInt64, UInt64) -> UInt64)),
            ("apus_key_size", address(apusRunKeySize as @convention(c) (UInt64) -> UInt64)),
            ("apus_csum_diff", address(apusRunChecksumDifference as @convention(c) (UInt64, UInt64, UInt64, UInt64, UInt64) -> UInt64)),
            ("apus_fib_lookup", address(apusRunFibLookup as @convention(c) (UInt64, UInt64, UInt64) -> UInt64)),
            ("apus_ktime", address(apusRunTime as @convention(c) () -> UInt64)),
            ("apus_random", address(apusRunRandom as @convention(c) () -> UInt64)),
            ("apus_processor", address(apusRunProcessor as @convention(c) () -> UInt64)),
            ("apus_helper", address(unsafe apusRunHelper as @convention(c) (UnsafeMutableRawPointer, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) -> UInt64)),
            ("apus_helper_checked", address(unsafe apusRunHelperChecked as @convention(c) (UnsafeMutableRawPointer, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) -> UInt64)),
            ("apus_tail", address(unsafe apusRunTail as @convention(c) (UnsafeMutableRawPointer, UInt64) -> UInt64)),
            ("apus_each_count", address(apusRunEachCount as @convention(c) (UInt64) -> UInt64)),
            ("apus_each_next", address(apusRunEachNext as @convention(c) (UInt64, UInt64, UInt64, UInt64) -> UInt64)),
        ]
    }

    /// An address of C code, from a C function pointer.
    private static func address<Function>(_ function: Function) -> UInt64 {
        UInt64(UInt(bitPattern: unsafe unsafeBitCast(function, to: UnsafeRawPointer.self)))
    }
}

@_noLocks @inline(__always)
private func machine(_ run: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Machine> { unsafe run.assumingMemoryBound(to: Machine.self) }

/// Once a burst; what differs from packet to packet the compiled code writes itself.
@_noLocks
private func apusRunBegin(_ run: UnsafeMutableRawPointer, _ image: UInt64, _ context: UnsafeRawPointer) {
    let image = unsafe UnsafePointer(Memory.pointer(image).assumingMemoryBound(to: ProgramImage.self))
    unsafe machine(run).initialize(to: Machine(image, context.assumingMemoryBound(to: XDPContext.self).pointee))
}

@_noLocks
private func apusRunLeave(_ run: UnsafeMutableRawPointer) { unsafe machine(run).pointee.leave() }

/// Nothing was written or moved yet, so the packet is where the context says.
@_noLocks
private func apusRunLook(_ context: UnsafeRawPointer, _ marks: UInt32, _ from: UInt64, _ size: UInt64) -> UInt32 {
    let context = unsafe context.assumingMemoryBound(to: XDPContext.self)
    let data = UInt64(UInt(bitPattern: unsafe context.pointee.data))
    guard unsafe Packet.isLooked(marks: UInt8(truncatingIfNeeded: marks), at: from, size, data: data, context.pointee) else { return 0 }
    unsafe UnsafeMutablePointer(mutating: context).pointee.finishChecksum()
    return 1
}

/// Records in `effect` what is not among the arrival's first 64 bytes, and answers with the bits of what is. Bit n of `bits`
/// is the byte at `place` + n from the arrival's first.
@_noLocks
private func apusRunWrote(_ effect: UnsafeMutableRawPointer, _ place: UInt64, _ bits: UInt64) -> UInt64 {
    let effect = unsafe effect.assumingMemoryBound(to: Effect.self)
    var written = WrittenBytes()
    written.record(bits, at: Int(bitPattern: UInt(place)))
    unsafe effect.pointee.written.include(written)
    return written.first
}

/// What helpers recorded in the machine belongs to the run's effect.
@_noLocks
private func apusRunJoin(_ effect: UnsafeMutableRawPointer, _ run: UnsafeRawPointer) {
    let recorded = unsafe run.assumingMemoryBound(to: Machine.self).pointee.packet.effect
    let effect = unsafe effect.assumingMemoryBound(to: Effect.self)
    unsafe effect.pointee.written.include(recorded.written)
    unsafe effect.pointee.looked = effect.pointee.looked || recorded.looked
    unsafe effect.pointee.cleared = effect.pointee.cleared || recorded.cleared
}

@_noLocks
private func apusRunMayTouch(_ run: UnsafeRawPointer, _ address: UInt64, _ size: UInt64, _ writes: UInt32) -> UInt32 {
    guard size > 0 else { return 1 }
    guard size <= UInt64(UInt32.max) else { return 0 }
    return unsafe run.assumingMemoryBound(to: Machine.self).pointee.mayTouch(address, Int(size), writes: writes != 0) ? 1 : 0
}

@_noLocks
private func apusRunIsMap(_ run: UnsafeRawPointer, _ address: UInt64) -> UInt32 {
    unsafe run.assumingMemoryBound(to: Machine.self).pointee.map(Checked.self, address) == nil ? 0 : 1
}

@_noLocks
private func apusRunAdjustHead(_ run: UnsafeMutableRawPointer, _ delta: UInt64) -> UInt64 { unsafe Machine.word(machine(run).pointee.packet.adjustHead(delta)) }
@_noLocks
private func apusRunAdjustTail(_ run: UnsafeMutableRawPointer, _ delta: UInt64) -> UInt64 { unsafe Machine.word(machine(run).pointee.packet.adjustTail(delta)) }
@_noLocks
private func apusRunAdjustMeta(_ run: UnsafeMutableRawPointer, _ delta: UInt64) -> UInt64 { unsafe Machine.word(machine(run).pointee.packet.adjustMeta(delta)) }

@_noLocks
private func apusRunLookup(_ map: UInt64, _ key: UInt64) -> UInt64 { unsafe Helpers.map(map).pointee.lookup(key) }
@_noLocks
private func apusRunUpdate(_ map: UInt64, _ key: UInt64, _ value: UInt64, _ flags: UInt64) -> UInt64 {
    unsafe Machine.word(Helpers.map(map).pointee.update(key, value, flags: flags))
}
@_noLocks
private func apusRunDelete(_ map: UInt64, _ key: UInt64) -> UInt64 { unsafe Machine.word(Helpers.map(map).pointee.delete(key)) }
@_noLocks
private func apusRunKeySize(_ map: UInt64) -> UInt64 { UInt64(unsafe Helpers.map(map).pointee.keySize) }

@_noLocks
private func apusRunChecksumDifference(_ from: UInt64, _ fromSize: UInt64, _ to: UInt64, _ toSize: UInt64, _ seed: UInt64) -> UInt64 {
    UInt64(bitPattern: Helpers.csumDiff(from, fromSize, to, toSize, seed))
}

@_noLocks
private func apusRunFibLookup(_ params: UInt64, _ size: UInt64, _ flags: UInt64) -> UInt64 { Machine.word(Helpers.fibLookup(params, size, flags)) }

@_noLocks
private func apusRunTime() -> UInt64 { apus_ktime_ns(APUS_CLOCK_MONOTONIC) }
@_noLocks
private func apusRunRandom() -> UInt64 { UInt64(apus_random32()) }
@_noLocks
private func apusRunProcessor() -> UInt64 { UInt64(apus_cpu()) }

/// Any helper without an entry of its own.
@_noLocks
private func apusRunHelper(_ run: UnsafeMutableRawPointer, _ number: UInt64, _ r1: UInt64, _ r2: UInt64, _ r3: UInt64, _ r4: UInt64, _ r5: UInt64) -> UInt64 {
    unsafe machine(run).pointee.help(Trusted.self, number, r1, r2, r3, r4, r5)
}

@_noLocks
private func apusRunHelperChecked(_ run: UnsafeMutableRawPointer, _ number: UInt64, _ r1: UInt64, _ r2: UInt64, _ r3: UInt64, _ r4: UInt64, _ r5: UInt64) -> UInt64 {
    unsafe machine(run).pointee.help(Checked.self, number, r1, r2, r3, r4, r5)
}

/// A tail call into a program that is not compiled: interpreted to its end, in the calling function's frame.
@_noLocks
private func apusRunTail(_ run: UnsafeMutableRawPointer, _ image: UInt64) -> UInt64 {
    let machine = unsafe machine(run)
    unsafe machine.pointee.image = UnsafePointer(Memory.pointer(image).assumingMemoryBound(to: ProgramImage.self))
    let frame = unsafe machine.pointee.frames &+ UInt64(machine.pointee.depth) &* UInt64(APUS_FRAME_BYTES)
    // Verified code keeps its frames on the stack, and nothing stands here.
    if unsafe !machine.pointee.image.pointee.isSandboxed { unsafe apus_zero(Memory.pointer(frame), Int(APUS_FRAME_BYTES)) }
    unsafe machine.pointee.watched |= Marks.clearsBit
    for r in 0..<10 { unsafe machine.pointee.registers[r] = 0 }
    unsafe machine.pointee.registers[1] = machine.pointee.md
    unsafe machine.pointee.registers[10] = frame &+ UInt64(APUS_FRAME_BYTES)
    let ended = unsafe machine.pointee.image.pointee.isSandboxed ? machine.pointee.walk(Checked.self, from: 0) : machine.pointee.walk(Trusted.self, from: 0)
    return ended ? unsafe machine.pointee.registers[0] : 0
}

/// Buckets of a hash, or entries of an array.
@_noLocks
private func apusRunEachCount(_ map: UInt64) -> UInt64 {
    let map = unsafe Helpers.map(map)
    return unsafe map.pointee.isHash ? UInt64(map.pointee.bucketMask) &+ 1 : UInt64(map.pointee.maxEntries)
}

/// The first node at `link` of a chain, or behind it, that is in the table, and the link behind it, in memory at `next`;
/// its key's and value's addresses at `found`. 0 at the chain's end. `link` is `none` at a bucket's start.
@_noLocks
private func apusRunEachNext(_ map: UInt64, _ bucket: UInt64, _ next: UInt64, _ found: UInt64) -> UInt64 {
    let map = unsafe Helpers.map(map)
    var link = Memory.load32(next)
    if link == MapStorage.none { link = unsafe apus_acquire32(map.pointee.buckets + Int(bucket)) }
    while link < MapStorage.end {
        let node = unsafe map.pointee.node(link)
        let after = unsafe apus_acquire32(Memory.word32(node))
        if unsafe map.pointee.search(node &+ 8) == link {
            Memory.store32(next, UInt64(after))
            Memory.store64(found, node &+ 8)
            Memory.store64(found &+ 8, unsafe map.pointee.value(link) &+ UInt64(map.pointee.cpuStride) &* UInt64(apus_cpu()))
            return 1
        }
        link = after
    }
    return 0
}

extension Machine {
    @inline(__always)
    fileprivate mutating func help<T: Trust>(_: T.Type, _ number: UInt64, _ r1: UInt64, _ r2: UInt64, _ r3: UInt64, _ r4: UInt64, _ r5: UInt64) -> UInt64 {
        unsafe registers[1] = r1
        unsafe registers[2] = r2
        unsafe registers[3] = r3
        unsafe registers[4] = r4
        unsafe registers[5] = r5
        guard let helper = Helper(rawValue: UInt16(truncatingIfNeeded: number)), call(T.self, helper) else {
            if fault == .none { fault = .access }
            return 0
        }
        return unsafe registers[0]
    }
}
