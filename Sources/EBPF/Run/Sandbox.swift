internal import CBPF

/// The sandbox: what an unverified program may touch. Every check is by address, whatever the program did to get there.
///
/// Map memory holds links as well as values: a hash program may touch a node's value and nothing else of it.
extension Machine {
    @inline(__always)
    func mayRead<T: Trust>(_: T.Type, _ address: UInt64, _ size: Int) -> Bool {
        T.isChecked ? size == 0 || mayTouch(address, size, writes: false) : true
    }

    /// What the kernel lets only some helpers take: bytes of the packet. These helpers take any other memory.
    @inline(__always)
    func mayPass<T: Trust>(_: T.Type, _ address: UInt64, _ size: Int, writes: Bool = false) -> Bool {
        guard T.isChecked && size != 0 else { return true }
        return mayTouch(address, size, writes: writes) && !(address >= packet.meta && address < packet.end)
    }

    /// Also records packet writes.
    @inline(__always)
    mutating func willWrite<T: Trust>(_: T.Type, _ address: UInt64, _ size: Int) -> Bool {
        if T.isChecked && size > 0 && !mayTouch(address, size, writes: true) { return false }
        packet.willStore(address, UInt64(size))
        return true
    }

    /// Atomics want aligned operands: the kernel's verifier sees to it, and so does the sandbox.
    @inline(__always)
    mutating func willWriteAtomic<T: Trust>(_: T.Type, _ address: UInt64, _ size: Int) -> Bool {
        if T.isChecked && address & UInt64(size &- 1) != 0 { return false }
        return willWrite(T.self, address, size)
    }

    /// A pointer to one of the program's maps.
    @inline(__always)
    func map<T: Trust>(_: T.Type, _ address: UInt64) -> UnsafeMutablePointer<MapStorage>? {
        if T.isChecked {
            for index in 0..<(unsafe image.pointee.mapCount) {
                let known = unsafe image.pointee.maps[index]
                if UInt64(UInt(bitPattern: known)) == address { return unsafe known }
                for slot in 0..<(unsafe known.pointee.innerSlots) where unsafe known.pointee.inner(slot) == address && address != 0 {
                    return unsafe Memory.pointer(address).assumingMemoryBound(to: MapStorage.self)
                }
            }
            return nil
        }
        return unsafe Memory.pointer(address).assumingMemoryBound(to: MapStorage.self)
    }

    /// Whether `size` bytes, at least one, lie inside one thing the program may touch.
    @_noLocks
    func mayTouch(_ address: UInt64, _ size: Int, writes: Bool) -> Bool {
        let (end, overflow) = address.addingReportingOverflow(UInt64(size))
        if overflow { return false }
        if address >= packet.meta && end <= packet.end { return true }
        if address >= frames && end <= frames &+ UInt64(depth &+ 1) &* UInt64(APUS_FRAME_BYTES) { return true }
        if !writes && isKey(address, end) { return true }
        for index in 0..<(unsafe image.pointee.mapCount) {
            let map = unsafe image.pointee.maps[index]
            if unsafe map.pointee.mayTouch(address, end, writes: writes) { return true }
            for slot in 0..<(unsafe map.pointee.innerSlots) {
                let inner = unsafe map.pointee.inner(slot)
                if inner != 0, unsafe Memory.pointer(inner).assumingMemoryBound(to: MapStorage.self).pointee.mayTouch(address, end, writes: writes) { return true }
            }
        }
        return false
    }

    /// The key that `bpf_for_each_map_elem` shows of an array.
    @_noLocks @inline(__always)
    private func isKey(_ address: UInt64, _ end: UInt64) -> Bool {
        let first = UInt64(UInt(bitPattern: unsafe saved))
        guard address >= first, end <= first &+ UInt64(APUS_FRAMES_MAX) &* 64 else { return false }
        let within = (address &- first) % 64
        return within >= 56 && within &+ (end &- address) <= 60
    }

    /// Nothing outlives the run: a lock still held is opened.
    @_noLocks
    mutating func leave() {
        guard heldLock != 0 else { return }
        unsafe apus_unlock(Memory.word32(heldLock))
        heldLock = 0
    }
}

extension MapStorage {
    /// Of a map of maps: places that hold an inner map or 0. A hash's free nodes hold inner maps of the past, which live
    /// as long as the outer one.
    var innerSlots: UInt32 {
        @_noLocks get { kind == .mapArray ? maxEntries : kind == .mapHash ? maxEntries &+ 1 : 0 }
    }

    @_noLocks
    func inner(_ slot: UInt32) -> UInt64 {
        unsafe apus_acquire64(Memory.word64(kind == .mapArray ? table &+ UInt64(slot) &* UInt64(stride) : value(slot)))
    }

    /// Whether the bytes up to `end` lie in one value that programs may reach.
    @_noLocks
    func mayTouch(_ address: UInt64, _ end: UInt64, writes: Bool) -> Bool {
        switch kind {
        case .array:
            let each = UInt64(cpuStride == 0 ? Int(maxEntries) &* stride : cpuStride)
            let whole = cpuStride == 0 ? each : each &* UInt64(cpuCount)
            guard address >= table && end <= table &+ whole else { return false }
            let within = (address &- table) % each % UInt64(stride)
            return within &+ (end &- address) <= UInt64(valueSize) && !(writes && touchesLock(within, end &- address))
        case .hash, .lruHash, .prefixTrie:
            if cpuStride != 0 && mayTouchPerCPU(address, end) { return true }
            let nodes = kind == .prefixTrie ? UInt64(maxEntries) &* 2 &+ 1 : UInt64(maxEntries) &+ 1
            guard address >= table && end <= table &+ nodes &* UInt64(stride) else { return false }
            let within = (address &- table) % UInt64(stride)
            // A callback is shown the key where it lies.
            if !writes && kind != .prefixTrie && within >= 8 && within &+ (end &- address) <= UInt64(8 &+ keySize) { return true }
            guard cpuStride == 0, within >= UInt64(valueOffset), within &+ (end &- address) <= UInt64(valueOffset &+ valueSize) else { return false }
            return !(writes && touchesLock(within &- UInt64(valueOffset), end &- address))
        case .deviceArray, .processors, .sockets:
            guard !writes, address >= table, end <= table &+ UInt64(maxEntries) &* 16 else { return false }
            return (address &- table) % 16 &+ (end &- address) <= UInt64(valueSize)
        case .ringBuffer:
            // Headers lie between the records: the consumer believes none of them.
            let ring = unsafe self.ring.pointee
            return address >= ring.data && end <= ring.data &+ (ring.mask &+ 1) &* 2
        case .deviceHash, .mapArray, .mapHash, .programs, .events, .queue, .stack:
            return false
        }
    }

    /// Only the lock helpers change a spin lock.
    @_noLocks @inline(__always)
    private func touchesLock(_ within: UInt64, _ size: UInt64) -> Bool {
        spinLockOffset >= 0 && within < UInt64(spinLockOffset &+ 4) && within &+ size > UInt64(spinLockOffset)
    }

    @_noLocks
    private func mayTouchPerCPU(_ address: UInt64, _ end: UInt64) -> Bool {
        guard address >= cpuValues, end <= cpuValues &+ UInt64(cpuStride) &* UInt64(cpuCount) else { return false }
        let step = UInt64((valueSize &+ 7) & ~7)
        return (address &- cpuValues) % UInt64(cpuStride) % step &+ (end &- address) <= UInt64(valueSize)
    }
}
