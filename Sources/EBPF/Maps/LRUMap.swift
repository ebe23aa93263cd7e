internal import CBPF

/// Eviction: a hand goes round the nodes, takes one step of recency from each it passes and evicts the first that has
/// none left. It moves only when the table is full.
///
/// A use counts for more than an insert, so an entry used since the last eviction outlives the next one wherever the
/// hand stands, as long as there is an entry that was not used. Each step the hand takes was paid for by a use or an
/// insert; one insert may still wait for many steps (a byte each, at most twice round).
extension MapStorage {
    /// In `recency`, a byte a node.
    private enum Recency {
        /// The spare node, and unused ones: nothing to evict.
        static var empty: UInt8 { @_noLocks @inline(__always) get { 0xff } }
        static var old: UInt8 { @_noLocks @inline(__always) get { 0 } }
        static var inserted: UInt8 { @_noLocks @inline(__always) get { 1 } }
        static var used: UInt8 { @_noLocks @inline(__always) get { 2 } }
    }

    /// A program's lookup is a use; the control side's is none.
    @_noLocks
    func lruLookup(_ key: UInt64, cpu: UInt32) -> UInt64 {
        let link = search(key)
        guard link < MapStorage.end else { return 0 }
        used(link)
        return value(link) &+ UInt64(min(cpu, cpuCount &- 1)) &* UInt64(cpuStride)
    }

    /// Readers call it without the lock. A node freed in between is marked as used: the hand then finds it in no
    /// chain, and skips it once.
    @_noLocks @inline(__always)
    func used(_ link: UInt32) {
        let at = unsafe recency + Int(link)
        if unsafe apus_relaxed8(at) < Recency.used { unsafe apus_set_relaxed8(at, Recency.used) }
    }

    /// Under lock: the node a new value went to. It was the spare one, of which `used` takes no notice.
    @_noLocks @inline(__always)
    func updated(_ link: UInt32) { unsafe apus_set_relaxed8(recency + Int(link), Recency.used) }

    @_noLocks @inline(__always)
    func inserted(_ link: UInt32) { unsafe apus_set_relaxed8(recency + Int(link), Recency.inserted) }

    @_noLocks @inline(__always)
    func forgotten(_ link: UInt32) { unsafe apus_set_relaxed8(recency + Int(link), Recency.empty) }

    /// Under lock, when every node but the spare one is in use: frees one.
    @_noLocks
    mutating func evict() {
        let nodes = maxEntries &+ 1
        // Three rounds take every node from `used` to `old`; where readers keep using all of them, any will do.
        var steps = UInt64(nodes) &* 4
        while true {
            let link = hand
            hand = hand &+ 1 < nodes ? hand &+ 1 : 0
            if steps > 0 { steps &-= 1 }
            if link == spare { continue }
            let at = unsafe recency + Int(link)
            let recent = unsafe apus_relaxed8(at)
            if recent == Recency.old || steps == 0 { return release(link, Memory.load32(node(link) &+ 4)) }
            if recent != Recency.empty { unsafe apus_set_relaxed8(at, recent &- 1) }
        }
    }
}
