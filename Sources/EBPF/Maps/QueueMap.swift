internal import CBPF

/// Queues and stacks: values without keys. `head` counts where the next one goes, `tail` the oldest, both over the
/// slots, one of which stays free so that full and empty differ.
extension MapStorage {
    @_noLocks @inline(__always)
    private func slot(_ index: UInt32) -> UInt64 { table &+ UInt64(index) &* UInt64(stride) }

    @_noLocks @inline(__always)
    private func next(_ index: UInt32) -> UInt32 { index &+ 1 > maxEntries ? 0 : index &+ 1 }

    @_noLocks @inline(__always)
    private func previous(_ index: UInt32) -> UInt32 { index == 0 ? maxEntries : index &- 1 }

    /// `bpf_map_push_elem`
    @_noLocks
    mutating func push(_ value: UInt64, flags: UInt64) -> Int64 {
        guard kind == .queue || kind == .stack else { return -ErrorNumber.invalid }
        // BPF_EXIST: the oldest makes room. "Only if new" means nothing here.
        guard flags <= 2, flags != MapStorage.onlyNew else { return -ErrorNumber.invalid }
        unsafe apus_lock(&lock)
        defer { unsafe apus_unlock(&lock) }
        if next(head) == tail {
            guard flags == MapStorage.onlyExisting else { return -ErrorNumber.tooBig }
            tail = next(tail)
        }
        unsafe apus_move(Memory.pointer(slot(head)), Memory.pointer(value), valueSize)
        head = next(head)
        return 0
    }

    /// `bpf_map_pop_elem` and, without `removes`, `bpf_map_peek_elem`.
    @_noLocks
    mutating func take(_ value: UInt64, removes: Bool) -> Int64 {
        guard kind == .queue || kind == .stack else { return -ErrorNumber.invalid }
        unsafe apus_lock(&lock)
        defer { unsafe apus_unlock(&lock) }
        if head == tail {
            unsafe apus_zero(Memory.pointer(value), valueSize)
            return -ErrorNumber.noEntry
        }
        let at = kind == .queue ? tail : previous(head)
        unsafe apus_move(Memory.pointer(value), Memory.pointer(slot(at)), valueSize)
        if removes {
            if kind == .queue { tail = next(tail) } else { head = at }
        }
        return 0
    }

    /// How many values there are.
    var queued: Int { Int(head >= tail ? head - tail : head + maxEntries + 1 - tail) }
}
