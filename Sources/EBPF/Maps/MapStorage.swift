internal import CBPF

/// A map's memory as programs and the engine see it: a trivial description of tables that never move. Its address is
/// what a program's map pointer holds.
///
/// Any number of lcores look up without waiting. Updates and deletions of a hash take its writer lock. An entry
/// updated gets a new node, as in the kernel, so that a reader holding the old value keeps it until the next change.
@safe struct MapStorage {
    /// Links between nodes are indices; one with this bit ends the chain of the bucket in its other bits, so that a
    /// reader whose node was moved to another chain under its feet notices.
    static var end: UInt32 { 0x8000_0000 }    // a stored constant is a lazy global in debug builds

    let isHash: Bool
    let keySize: Int
    let valueSize: Int
    /// Values follow one another at this distance: of an array its values, of a hash its nodes.
    let stride: Int
    let maxEntries: UInt32
    /// Array: value 0. Hash: node 0.
    let table: UInt64
    /// Hash only from here on. Bytes from a node to its value; the key lies 8 bytes in, behind link and hash.
    let valueOffset: Int
    let buckets: UnsafeMutablePointer<UInt32>
    let bucketMask: UInt32
    let seed: UInt64
    var lock: UInt32 = 0        // writers
    var free: UInt32            // under lock: chain of unused nodes
    var spare: UInt32           // under lock: the node an update takes, the old one becomes the next spare
    var count: UInt32 = 0       // under lock

    /// The value's address, 0 if the key is not there.
    @_noLocks @inline(__always)
    func lookup(_ key: UInt64) -> UInt64 {
        isHash ? hashLookup(key) : arrayLookup(key)
    }

    @_noLocks @inline(__always)
    func arrayLookup(_ key: UInt64) -> UInt64 {
        let index = Memory.load32(key)
        return index < maxEntries ? table &+ UInt64(index) &* UInt64(stride) : 0
    }

    @_noLocks
    func hashLookup(_ key: UInt64) -> UInt64 {
        let hash = self.hash(key)
        // A restart needs a writer that moved a node in between; 64 in a row do not happen.
        for _ in 0..<64 {
            var link = unsafe apus_acquire32(buckets + Int(hash & bucketMask))
            while link < MapStorage.end {
                let node = self.node(link)
                if matches(node, key, hash) { return node &+ UInt64(valueOffset) }
                link = unsafe apus_acquire32(Memory.word32(node))
            }
            if link == MapStorage.end | hash & bucketMask { return 0 }
        }
        return 0
    }

    /// `bpf_map_update_elem`: 0 or a negated error number, the kernel's checks in the kernel's order.
    @_noLocks
    mutating func update(_ key: UInt64, _ value: UInt64, flags: UInt64) -> Int64 {
        let lockBit: UInt64 = 4     // BPF_F_LOCK: needs a spin lock in the value, which no map here has
        guard flags & ~lockBit <= 2 else { return -ErrorNumber.invalid }
        if !isHash {
            let at = arrayLookup(key)
            if at == 0 { return -ErrorNumber.tooBig }
            if flags & 1 != 0 { return -ErrorNumber.exists }
            if flags & lockBit != 0 { return -ErrorNumber.invalid }
            unsafe apus_move(Memory.pointer(at), Memory.pointer(value), valueSize)
            return 0
        }
        if flags & lockBit != 0 { return -ErrorNumber.invalid }
        let hash = self.hash(key)
        unsafe apus_lock(&lock)
        let result = insert(key, value, flags, hash)
        unsafe apus_unlock(&lock)
        return result
    }

    /// `bpf_map_delete_elem`: 0 or a negated error number.
    @_noLocks
    mutating func delete(_ key: UInt64) -> Int64 {
        guard isHash else { return -ErrorNumber.invalid }
        let hash = self.hash(key)
        unsafe apus_lock(&lock)
        let link = find(key, hash)
        if link < MapStorage.end {
            unlink(link, hash)
            unsafe apus_release32(Memory.word32(node(link)), free)
            free = link
            count &-= 1
        }
        unsafe apus_unlock(&lock)
        return link < MapStorage.end ? 0 : -ErrorNumber.noEntry
    }

    @_noLocks @inline(__always)
    func node(_ link: UInt32) -> UInt64 { table &+ UInt64(link) &* UInt64(stride) }

    @_noLocks @inline(__always)
    private func matches(_ node: UInt64, _ key: UInt64, _ hash: UInt32) -> Bool {
        guard Memory.load32(node &+ 4) == hash else { return false }
        return unsafe apus_equal(Memory.pointer(node &+ 8), Memory.pointer(key), keySize)
    }

    /// Under lock.
    @_noLocks
    private func find(_ key: UInt64, _ hash: UInt32) -> UInt32 {
        var link = unsafe buckets[Int(hash & bucketMask)]
        while link < MapStorage.end && !matches(node(link), key, hash) { link = Memory.load32(node(link)) }
        return link
    }

    /// Under lock.
    @_noLocks
    private mutating func insert(_ key: UInt64, _ value: UInt64, _ flags: UInt64, _ hash: UInt32) -> Int64 {
        let old = find(key, hash)
        let exists = old < MapStorage.end
        if exists && flags == 1 { return -ErrorNumber.exists }
        if !exists && flags == 2 { return -ErrorNumber.noEntry }
        let new = exists ? spare : free
        if new >= MapStorage.end { return -ErrorNumber.tooBig }
        let node = self.node(new)
        if !exists { free = Memory.load32(node) }
        // The key in the node changes while a late reader may still compare it: it finds a mismatch or, once the
        // hash is in, its own key; its value may be half new, as in the kernel.
        Memory.store32(node &+ 4, UInt64(hash))
        unsafe apus_move(Memory.pointer(node &+ 8), Memory.pointer(key), keySize)
        unsafe apus_move(Memory.pointer(node &+ UInt64(valueOffset)), Memory.pointer(value), valueSize)
        let bucket = unsafe buckets + Int(hash & bucketMask)
        unsafe apus_release32(Memory.word32(node), bucket.pointee)
        unsafe apus_release32(bucket, new)
        if exists {
            unlink(old, hash)
            spare = old
        } else {
            count &+= 1
        }
        return 0
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

/// Linux error numbers programs meet, the same on every architecture Linux has.
enum ErrorNumber {
    static var noEntry: Int64 { @_noLocks @inline(__always) get { 2 } }
    static var tooBig: Int64 { @_noLocks @inline(__always) get { 7 } }
    static var noAccess: Int64 { @_noLocks @inline(__always) get { 13 } }
    static var exists: Int64 { @_noLocks @inline(__always) get { 17 } }
    static var invalid: Int64 { @_noLocks @inline(__always) get { 22 } }
    static var notSupported: Int64 { @_noLocks @inline(__always) get { 95 } }
}
