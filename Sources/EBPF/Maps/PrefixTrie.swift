internal import CBPF

/// Longest-prefix match: a binary trie with one node a prefix and at most as many branching nodes in between.
///
/// Readers follow links without a lock. Every change shows by one store; only a node that is taken into use again
/// could mislead a reader still standing on it, so that counts a version up first, and the reader starts again.
///
/// `buckets` holds two words: the link to the topmost node, and the version.
extension MapStorage {
    // A node: two links, its link in the list of free nodes, whether it only branches, then the key (prefix length and
    // bits, as programs give it), then the value.
    private static var freeOffset: UInt64 { @_noLocks @inline(__always) get { 8 } }
    private static var branchOffset: UInt64 { @_noLocks @inline(__always) get { 12 } }
    static var trieKeyOffset: UInt64 { @_noLocks @inline(__always) get { 16 } }

    private var lengthMax: UInt32 { @_noLocks @inline(__always) get { UInt32(truncatingIfNeeded: keySize &- 4) &* 8 } }

    @_noLocks @inline(__always)
    func trieKey(_ node: UInt32) -> UInt64 { self.node(node) &+ MapStorage.trieKeyOffset }

    @_noLocks @inline(__always)
    private func child(_ node: UInt32, _ bit: UInt64) -> UInt64 { self.node(node) &+ bit &* 4 }
    @_noLocks @inline(__always)
    private func length(_ node: UInt32) -> UInt32 { Memory.load32(trieKey(node)) }
    @_noLocks @inline(__always)
    private func isBranch(_ node: UInt32) -> Bool { Memory.load32(self.node(node) &+ MapStorage.branchOffset) != 0 }
    @_noLocks @inline(__always)
    private func bits(_ node: UInt32) -> UInt64 { trieKey(node) &+ 4 }

    @_noLocks @inline(__always)
    private func bit(_ bits: UInt64, _ index: UInt32) -> UInt64 {
        UInt64(Memory.load8(bits &+ UInt64(index / 8)) >> (7 &- UInt8(truncatingIfNeeded: index % 8)) & 1)
    }

    /// How many leading bits a node and a key have in common, up to the shorter's length.
    @_noLocks
    private func common(_ node: UInt32, _ key: UInt64) -> UInt32 {
        let limit = min(length(node), Memory.load32(key))
        let a = bits(node), b = key &+ 4
        var at: UInt32 = 0
        while at < limit {
            let difference = Memory.load8(a &+ UInt64(at / 8)) ^ Memory.load8(b &+ UInt64(at / 8))
            if difference != 0 { return min(limit, at &+ UInt32(difference.leadingZeroBitCount)) }
            at &+= 8
        }
        return limit
    }

    @_noLocks
    func trieLookup(_ key: UInt64) -> UInt64 {
        guard Memory.load32(key) <= lengthMax else { return 0 }
        var found: UInt64 = 0
        // A restart needs a route set in between, as in a hash.
        for _ in 0..<64 {
            let before = unsafe apus_acquire32(buckets + 1)
            found = descend(key, from: unsafe apus_acquire32(buckets))
            apus_fence()
            if unsafe apus_acquire32(buckets + 1) == before { return found }
        }
        return found
    }

    @_noLocks
    private func descend(_ key: UInt64, from root: UInt32) -> UInt64 {
        var node = root
        var found: UInt64 = 0
        // A node reused under our feet could lead in a circle; a path has at most one node a bit.
        var steps = lengthMax &+ 1
        while node != MapStorage.none && steps > 0 {
            let matched = common(node, key)
            if matched == lengthMax { return value(node) }
            if matched < length(node) { break }
            if !isBranch(node), !EngineBug.has(.longestPrefix) || found == 0 { found = value(node) }
            node = unsafe apus_acquire32(Memory.word32(child(node, bit(key &+ 4, length(node)))))
            steps &-= 1
        }
        return found
    }

    @_noLocks
    mutating func trieUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        guard flags <= 2, Memory.load32(key) <= lengthMax else { return -ErrorNumber.invalid }
        unsafe apus_lock(&lock)
        let result = trieInsert(key, value, flags)
        unsafe apus_unlock(&lock)
        return result
    }

    @_noLocks
    mutating func trieDelete(_ key: UInt64) -> Int64 {
        guard Memory.load32(key) <= lengthMax else { return -ErrorNumber.invalid }
        unsafe apus_lock(&lock)
        let result = trieRemove(key)
        unsafe apus_unlock(&lock)
        return result
    }

    // MARK: Under lock

    private var rootLink: UInt64 { @_noLocks @inline(__always) get { unsafe UInt64(UInt(bitPattern: buckets)) } }

    @_noLocks
    private mutating func trieInsert(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        let length = Memory.load32(key)
        var slot = rootLink
        var at = Memory.load32(slot), matched: UInt32 = 0
        while at != MapStorage.none {
            matched = common(at, key)
            if self.length(at) != matched || self.length(at) == length { break }
            slot = child(at, bit(key &+ 4, self.length(at)))
            at = Memory.load32(slot)
        }
        let isThere = at != MapStorage.none && self.length(at) == matched && !isBranch(at)
        if isThere && flags == MapStorage.onlyNew { return -ErrorNumber.exists }
        if !isThere {
            if flags == MapStorage.onlyExisting { return -ErrorNumber.noEntry }
            if count == maxEntries { return -ErrorNumber.noSpace }
            count &+= 1
        }
        let new = takeNode(length, key &+ 4)
        copyValue(self.value(new), value)
        if at == MapStorage.none {
            publish(slot, new)
        } else if self.length(at) == matched {
            // The same prefix: takes its place, and its children.
            for side in UInt64(0)...1 { Memory.store32(child(new, side), UInt64(Memory.load32(child(at, side)))) }
            publish(slot, new)
            giveNode(at)
        } else if matched == length {
            Memory.store32(child(new, bit(bits(at), matched)), UInt64(at))
            publish(slot, new)
        } else {
            let branch = takeNode(matched, bits(at))
            Memory.store32(node(branch) &+ MapStorage.branchOffset, 1)
            let side = bit(key &+ 4, matched)
            Memory.store32(child(branch, side), UInt64(new))
            Memory.store32(child(branch, 1 &- side), UInt64(at))
            publish(slot, branch)
        }
        return 0
    }

    @_noLocks
    private mutating func trieRemove(_ key: UInt64) -> Int64 {
        let length = Memory.load32(key)
        var slot = rootLink, parentSlot = rootLink, parent = MapStorage.none
        var at = Memory.load32(slot), matched: UInt32 = 0
        while at != MapStorage.none {
            matched = common(at, key)
            if self.length(at) != matched || self.length(at) == length { break }
            parent = at
            parentSlot = slot
            slot = child(at, bit(key &+ 4, self.length(at)))
            at = Memory.load32(slot)
        }
        guard at != MapStorage.none, self.length(at) == length, matched == length, !isBranch(at) else { return -ErrorNumber.noEntry }
        count &-= 1
        let left = Memory.load32(child(at, 0)), right = Memory.load32(child(at, 1))
        if left != MapStorage.none && right != MapStorage.none {
            Memory.store32(node(at) &+ MapStorage.branchOffset, 1)
            return 0
        }
        if parent != MapStorage.none && isBranch(parent) && left == MapStorage.none && right == MapStorage.none {
            // A branch with one arm left is none: the other arm moves up.
            let isLeft = Memory.load32(child(parent, 0)) == at
            publish(parentSlot, Memory.load32(child(parent, isLeft ? 1 : 0)))
            giveNode(parent)
        } else {
            publish(slot, left != MapStorage.none ? left : right)
        }
        giveNode(at)
        return 0
    }

    @_noLocks @inline(__always)
    private func publish(_ slot: UInt64, _ link: UInt32) { unsafe apus_release32(Memory.word32(slot), link) }

    /// There always is one: a trie of n prefixes has at most n - 1 branches, and an update needs one more than that.
    @_noLocks
    private mutating func takeNode(_ length: UInt32, _ bits: UInt64) -> UInt32 {
        let link = free
        let node = self.node(link)
        free = Memory.load32(node &+ MapStorage.freeOffset)
        // Before the first byte changes, for readers.
        let next = unsafe buckets[1] &+ 1
        unsafe apus_release32(buckets + 1, next)
        apus_fence()
        Memory.store32(node, UInt64(MapStorage.none))
        Memory.store32(node &+ 4, UInt64(MapStorage.none))
        Memory.store32(node &+ MapStorage.branchOffset, 0)
        Memory.store32(node &+ MapStorage.trieKeyOffset, UInt64(length))
        unsafe apus_move(Memory.pointer(node &+ MapStorage.trieKeyOffset &+ 4), Memory.pointer(bits), keySize &- 4)
        return link
    }

    /// Readers may still stand on it: nothing they look at changes.
    @_noLocks
    private mutating func giveNode(_ link: UInt32) {
        Memory.store32(node(link) &+ MapStorage.freeOffset, UInt64(free))
        free = link
    }

    /// All nodes free: at the start.
    mutating func linkTrieNodes(_ count: UInt32) {
        for link in 0..<count {
            Memory.store32(node(link) &+ MapStorage.freeOffset, UInt64(link + 1 < count ? link + 1 : MapStorage.none))
        }
        unsafe buckets[0] = MapStorage.none
    }

    // MARK: Control

    /// Every prefix's node, in no order that means anything. Under lock.
    func trieNodes() -> [UInt32] {
        var pending = [Memory.load32(rootLink)], nodes: [UInt32] = []
        while let at = pending.popLast() {
            guard at != MapStorage.none else { continue }
            if !isBranch(at) { nodes.append(at) }
            pending.append(Memory.load32(child(at, 0)))
            pending.append(Memory.load32(child(at, 1)))
        }
        return nodes
    }

    /// The node with exactly this prefix: the control side matches like a program, but deletes and lists exactly.
    func trieContains(_ key: UInt64) -> Bool {
        var at = Memory.load32(rootLink)
        while at != MapStorage.none {
            let matched = common(at, key)
            if length(at) != matched || length(at) == Memory.load32(key) {
                return length(at) == Memory.load32(key) && matched == length(at) && !isBranch(at)
            }
            at = Memory.load32(child(at, bit(key &+ 4, length(at))))
        }
        return false
    }
}
