internal import CBPF

/// Hash tables: chains of nodes that never move in memory. An entry updated gets a new node, as in the kernel, so that
/// a reader holding the old value keeps it until the next change.
extension MapStorage {
    /// Links between nodes are indices; one with this bit ends the chain of the bucket in its other bits, so that a
    /// reader whose node was moved to another chain under its feet notices.
    static var end: UInt32 { @_noLocks @inline(__always) get { 0x8000_0000 } }    // a stored constant is a lazy global in debug builds

    @_noLocks @inline(__always)
    func node(_ link: UInt32) -> UInt64 { table &+ UInt64(link) &* UInt64(stride) }

    /// Address of a node's value; of a per-CPU map, CPU 0's.
    @_noLocks @inline(__always)
    func value(_ link: UInt32) -> UInt64 {
        cpuStride == 0 ? node(link) &+ UInt64(valueOffset) : cpuValues &+ UInt64(link) &* UInt64((valueSize &+ 7) & ~7)
    }

    @_noLocks
    func hashLookup(_ key: UInt64) -> UInt64 {
        let link = search(key)
        return link < MapStorage.end ? value(link) : 0
    }

    @_noLocks
    func hashLookup(_ key: UInt64, cpu: UInt32) -> UInt64 {
        let link = search(key)
        return link < MapStorage.end ? value(link) &+ UInt64(min(cpu, cpuCount &- 1)) &* UInt64(cpuStride) : 0
    }

    /// Without the lock: the node of a key, or `end`.
    ///
    /// One change at a time keeps every key findable: an updated entry's new node takes its place in the chain with one
    /// store. Two changes under a reader's feet can lead it past a key, or into another chain; so a reader that finds
    /// nothing looks again where the table changed meanwhile.
    @_noLocks
    func search(_ key: UInt64) -> UInt32 {
        let hash = self.hash(key)
        // Each round more needs a writer that finished in between; 1024 in a row do not happen.
        for _ in 0..<1024 {
            let before = unsafe apus_acquire32(changes)
            var link = unsafe apus_acquire32(buckets + Int(hash & bucketMask))
            while link < MapStorage.end {
                let node = self.node(link)
                if matches(node, key, hash) { return link }
                link = unsafe apus_acquire32(Memory.word32(node))
            }
            if link == MapStorage.end | hash & bucketMask, unsafe apus_acquire32(changes) == before { return MapStorage.end }
        }
        return MapStorage.end
    }

    /// Counts the writers' changes, behind the buckets.
    private var changes: UnsafeMutablePointer<UInt32> { @_noLocks get { unsafe buckets + (Int(bucketMask) &+ 1) } }

    /// Under lock, after the chains changed.
    @_noLocks
    private func changed() { unsafe apus_release32(changes, changes.pointee &+ 1) }

    /// `allCPUs`: the value holds every CPU's, as the control side gives it.
    @_noLocks
    mutating func hashUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64, allCPUs: Bool) -> Int64 {
        let mayLock = kind == .hash && cpuStride == 0
        guard (mayLock ? flags & ~MapStorage.locked : flags) <= 2 else { return -ErrorNumber.invalid }
        if flags & MapStorage.locked != 0 && spinLockOffset < 0 { return -ErrorNumber.invalid }
        let hash = self.hash(key)
        unsafe apus_lock(&lock)
        let result = insert(key, value, flags, hash, allCPUs)
        unsafe apus_unlock(&lock)
        return result
    }

    @_noLocks
    mutating func hashDelete(_ key: UInt64) -> Int64 {
        let hash = self.hash(key)
        unsafe apus_lock(&lock)
        let link = find(key, hash)
        if link < MapStorage.end { release(link, hash) }
        unsafe apus_unlock(&lock)
        return link < MapStorage.end ? 0 : -ErrorNumber.noEntry
    }

    @_noLocks @inline(__always)
    private func matches(_ node: UInt64, _ key: UInt64, _ hash: UInt32) -> Bool {
        guard Memory.load32(node &+ 4) == hash else { return false }
        return unsafe apus_equal(Memory.pointer(node &+ 8), Memory.pointer(key), keySize)
    }

    /// Under lock.
    @_noLocks
    func find(_ key: UInt64, _ hash: UInt32) -> UInt32 {
        var link = unsafe buckets[Int(hash & bucketMask)]
        while link < MapStorage.end && !matches(node(link), key, hash) { link = Memory.load32(node(link)) }
        return link
    }

    /// Under lock.
    @_noLocks
    private mutating func insert(_ key: UInt64, _ value: UInt64, _ flags: UInt64, _ hash: UInt32, _ allCPUs: Bool) -> Int64 {
        let old = find(key, hash)
        let exists = old < MapStorage.end
        let condition = flags & ~MapStorage.locked
        if exists && condition == MapStorage.onlyNew && !EngineBug.has(.updateFlag) { return -ErrorNumber.exists }
        if !exists && condition == MapStorage.onlyExisting { return -ErrorNumber.noEntry }
        if exists && flags & MapStorage.locked != 0 {
            copyLocked(self.value(old), value)
            return 0
        }
        if exists && cpuStride != 0 {
            copyPerCPU(self.value(old), value, allCPUs: allCPUs)
            if kind == .lruHash { used(old) }
            return 0
        }
        if !exists && free >= MapStorage.end {
            if kind != .lruHash { return -ErrorNumber.tooBig }
            evict()
        }
        let new = exists ? spare : free
        let node = self.node(new)
        if !exists { free = Memory.load32(node) }
        // The key in the node changes while a late reader may still compare it: it finds a mismatch or, once the
        // hash is in, its own key; its value may be half new, as in the kernel.
        Memory.store32(node &+ 4, UInt64(hash))
        unsafe apus_move(Memory.pointer(node &+ 8), Memory.pointer(key), keySize)
        fill(new, value, allCPUs)
        if exists {
            replace(old, new, hash)
            spare = old
        } else {
            let bucket = unsafe buckets + Int(hash & bucketMask)
            unsafe apus_release32(Memory.word32(node), bucket.pointee)
            unsafe apus_release32(bucket, new)
            count &+= 1
        }
        changed()
        if kind == .lruHash {
            exists ? updated(new) : inserted(new)
            if exists { forgotten(old) }
        }
        return 0
    }

    /// Under lock: the new node takes the old one's place. The old one keeps its link, for readers that stand on it.
    @_noLocks
    private func replace(_ old: UInt32, _ new: UInt32, _ hash: UInt32) {
        var before = unsafe buckets + Int(hash & bucketMask)
        while unsafe before.pointee != old { unsafe before = Memory.word32(node(before.pointee)) }
        unsafe apus_release32(Memory.word32(node(new)), Memory.load32(node(old)))
        unsafe apus_release32(before, new)
    }

    /// Under lock: a new entry whose value is an address of 8 bytes, whatever the declared size.
    mutating func insertObject(_ key: UInt64, _ value: UInt64, _ flags: UInt64, _ hash: UInt32) -> Int64 {
        if flags == MapStorage.onlyExisting { return -ErrorNumber.noEntry }
        if free >= MapStorage.end { return -ErrorNumber.tooBig }
        // Before the entry can be found: the 4 bytes that are copied then are the same.
        Memory.store64(self.value(free), Memory.load64(value))
        return insert(key, value, flags, hash, false)
    }

    /// A new node's value: whole, its lock open, other CPUs' at zero.
    @_noLocks
    private func fill(_ link: UInt32, _ value: UInt64, _ allCPUs: Bool) {
        let at = self.value(link)
        if cpuStride == 0 {
            if spinLockOffset >= 0 { Memory.store32(at &+ UInt64(spinLockOffset), 0) }
            copyValue(at, value)
            return
        }
        for cpu in 0..<UInt64(cpuCount) { unsafe apus_zero(Memory.pointer(at &+ cpu &* UInt64(cpuStride)), valueSize) }
        copyPerCPU(at, value, allCPUs: allCPUs)
    }

    /// Under lock: takes a node out of its chain and frees it.
    @_noLocks
    mutating func release(_ link: UInt32, _ hash: UInt32) {
        unlink(link, hash)
        unsafe apus_release32(Memory.word32(node(link)), free)
        free = link
        count &-= 1
        changed()
        if kind == .lruHash { forgotten(link) }
    }

    /// Under lock. The node keeps its own link, for readers that stand on it.
    @_noLocks
    private func unlink(_ link: UInt32, _ hash: UInt32) {
        var before = unsafe buckets + Int(hash & bucketMask)
        while unsafe before.pointee != link { unsafe before = Memory.word32(node(before.pointee)) }
        unsafe apus_release32(before, Memory.load32(node(link)))
    }

    /// Multiply and fold, eight bytes at a time; the seed keeps senders from choosing colliding flows.
    @_noLocks @inline(__always)
    func hash(_ key: UInt64) -> UInt32 {
        var state = seed
        var at = 0
        while at &+ 8 <= keySize {
            state = mix(state ^ Memory.load64(key &+ UInt64(at)))
            at &+= 8
        }
        var rest: UInt64 = 0
        while at < keySize {
            rest = rest << 8 | UInt64(Memory.load8(key &+ UInt64(at)))
            at &+= 1
        }
        state = mix(state ^ rest)
        return UInt32(truncatingIfNeeded: state ^ state >> 32)
    }

    @_noLocks @inline(__always)
    private func mix(_ value: UInt64) -> UInt64 {
        let product = value.multipliedFullWidth(by: 0x9e37_79b9_7f4a_7c15)
        return product.high ^ product.low
    }
}
