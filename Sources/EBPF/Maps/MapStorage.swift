internal import CBPF

/// A map's memory as programs and the engine see it: a trivial description of tables that never move. Its address is
/// what a program's map pointer holds.
///
/// Any number of lcores look up without waiting. Updates and deletions take the map's writer lock, except where they
/// are one store. What an operation does is the kernel's, with its error numbers and the order of its checks.
@safe struct MapStorage {
    let kind: MapKind
    let keySize: Int
    /// As declared. Values follow one another at distances rounded up to 8.
    let valueSize: Int
    let stride: Int
    let maxEntries: UInt32
    /// Indexed maps: value 0, of CPU 0. Hash and trie: node 0. Queue: slot 0. Ring buffer: its `apus_ring`.
    let table: UInt64
    /// Bytes from one CPU's values to the next one's; 0: all CPUs share them.
    let cpuStride: Int
    /// Per-CPU hashes: value of node 0 and CPU 0.
    let cpuValues: UInt64
    let cpuCount: UInt32
    /// Offset of a spin lock in the value, -1 if there is none.
    let spinLockOffset: Int

    // Hash and trie from here on.

    /// Bytes from a node to its value. Of a hash the key lies 8 bytes in, behind link and hash.
    let valueOffset: Int
    /// Of a trie, two words: see there.
    let buckets: UnsafeMutablePointer<UInt32>
    let bucketMask: UInt32
    let seed: UInt64
    /// LRU: how recently each node was used, `Recency`, for the hand that goes round.
    let recency: UnsafeMutablePointer<UInt8>
    var hand: UInt32 = 0        // under lock
    var lock: UInt32 = 0        // writers
    var free: UInt32            // under lock: chain of unused nodes
    var spare: UInt32           // under lock: the node an update takes, the old one becomes the next spare
    var count: UInt32 = 0       // under lock
    /// Queue: where the next value goes, and where the oldest lies.
    var head: UInt32 = 0, tail: UInt32 = 0

    static var none: UInt32 { @_noLocks @inline(__always) get { .max } }

    /// `bpf_map_update_elem`'s flags.
    static var onlyNew: UInt64 { @_noLocks @inline(__always) get { 1 } }
    static var onlyExisting: UInt64 { @_noLocks @inline(__always) get { 2 } }
    static var locked: UInt64 { @_noLocks @inline(__always) get { 4 } }

    var isHash: Bool { @_noLocks @inline(__always) get { kind.isHash } }

    // MARK: What programs do

    /// `bpf_map_lookup_elem`: the value's address, 0 if the key is not there.
    @_noLocks @inline(__always)
    func lookup(_ key: UInt64) -> UInt64 {
        switch kind {
        case .array: return cpuStride == 0 ? arrayLookup(key) : arrayLookup(key, cpu: apus_cpu())
        case .hash: return cpuStride == 0 ? hashLookup(key) : hashLookup(key, cpu: apus_cpu())
        default: return lookupOther(key)
        }
    }

    @_noLocks
    private func lookupOther(_ key: UInt64) -> UInt64 {
        switch kind {
        case .lruHash: return lruLookup(key, cpu: cpuStride == 0 ? 0 : apus_cpu())
        case .prefixTrie: return trieLookup(key)
        case .mapArray:
            let at = arrayLookup(key)
            return at == 0 ? 0 : unsafe apus_acquire64(Memory.word64(at))
        case .mapHash:
            let at = hashLookup(key)
            return at == 0 ? 0 : unsafe apus_acquire64(Memory.word64(at))
        case .deviceArray, .processors, .sockets:
            let at = arrayLookup(key)
            return at == 0 || Memory.load64(at &+ 8) == 0 ? 0 : at
        case .deviceHash: return hashLookup(key)
        default: return 0
        }
    }

    /// `bpf_map_update_elem`: 0 or a negated error number. A per-CPU map's value of this CPU changes.
    @_noLocks
    mutating func update(_ key: UInt64, _ value: UInt64, flags: UInt64) -> Int64 {
        switch kind {
        case .array: return arrayUpdate(key, value, flags)
        case .hash, .lruHash: return hashUpdate(key, value, flags, allCPUs: false)
        case .prefixTrie: return trieUpdate(key, value, flags)
        // The kernel lets programs change none of the others this way.
        default: return -ErrorNumber.invalid
        }
    }

    /// `bpf_map_delete_elem`: 0 or a negated error number.
    @_noLocks
    mutating func delete(_ key: UInt64) -> Int64 {
        switch kind {
        case .array: return -ErrorNumber.invalid
        case .hash, .lruHash: return hashDelete(key)
        case .prefixTrie: return trieDelete(key)
        default: return -ErrorNumber.invalid
        }
    }

    /// `bpf_map_lookup_percpu_elem`
    @_noLocks
    func lookup(_ key: UInt64, cpu: UInt32) -> UInt64 {
        guard cpu < cpuCount, cpuStride != 0 else { return 0 }
        switch kind {
        case .array: return arrayLookup(key, cpu: cpu)
        case .hash: return hashLookup(key, cpu: cpu)
        case .lruHash: return lruLookup(key, cpu: cpu)
        default: return 0
        }
    }

    // MARK: Arrays

    @_noLocks @inline(__always)
    func arrayLookup(_ key: UInt64) -> UInt64 {
        let index = Memory.load32(key)
        return index < maxEntries ? table &+ UInt64(index) &* UInt64(stride) : 0
    }

    @_noLocks @inline(__always)
    func arrayLookup(_ key: UInt64, cpu: UInt32) -> UInt64 {
        let at = arrayLookup(key)
        return at == 0 ? 0 : at &+ UInt64(min(cpu, cpuCount &- 1)) &* UInt64(cpuStride)
    }

    @_noLocks
    private func arrayUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        guard flags & ~MapStorage.locked <= 2 else { return -ErrorNumber.invalid }
        let at = arrayLookup(key)
        if at == 0 { return -ErrorNumber.tooBig }
        if flags & MapStorage.onlyNew != 0 { return -ErrorNumber.exists }
        if flags & MapStorage.locked != 0 {
            guard spinLockOffset >= 0 else { return -ErrorNumber.invalid }
            copyLocked(at, value)
        } else if cpuStride != 0 {
            copyPerCPU(at, value, allCPUs: false)
        } else {
            copyValue(at, value)
        }
        return 0
    }

    /// The control side's: the value holds every CPU's, one after the other.
    func perCPUArrayUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        guard flags <= 2 else { return -ErrorNumber.invalid }
        let at = arrayLookup(key)
        if at == 0 { return -ErrorNumber.tooBig }
        if flags == MapStorage.onlyNew { return -ErrorNumber.exists }
        copyPerCPU(at, value, allCPUs: true)
        return 0
    }

    // MARK: Values

    /// A spin lock inside of the value keeps its state.
    @_noLocks @inline(__always)
    func copyValue(_ to: UInt64, _ from: UInt64) {
        guard spinLockOffset >= 0 else {
            unsafe apus_move(Memory.pointer(to), Memory.pointer(from), valueSize)
            return
        }
        let behind = spinLockOffset &+ 4
        unsafe apus_move(Memory.pointer(to), Memory.pointer(from), spinLockOffset)
        unsafe apus_move(Memory.pointer(to &+ UInt64(behind)), Memory.pointer(from &+ UInt64(behind)), valueSize &- behind)
    }

    /// `BPF_F_LOCK`: with the value's own lock held.
    @_noLocks
    func copyLocked(_ to: UInt64, _ from: UInt64) {
        let lock = unsafe Memory.word32(to &+ UInt64(spinLockOffset))
        unsafe apus_lock(lock)
        copyValue(to, from)
        unsafe apus_unlock(lock)
    }

    /// To this CPU's copy of the value at `to`, which is CPU 0's, or to all of them.
    @_noLocks
    func copyPerCPU(_ to: UInt64, _ from: UInt64, allCPUs: Bool) {
        guard allCPUs else {
            let cpu = min(apus_cpu(), cpuCount &- 1)
            unsafe apus_move(Memory.pointer(to &+ UInt64(cpu) &* UInt64(cpuStride)), Memory.pointer(from), valueSize)
            return
        }
        let step = UInt64((valueSize &+ 7) & ~7)
        for cpu in 0..<UInt64(cpuCount) {
            unsafe apus_move(Memory.pointer(to &+ cpu &* UInt64(cpuStride)), Memory.pointer(from &+ cpu &* step), valueSize)
        }
    }
}
