import CDPDK

/// How one lcore spent its time. One writer, relaxed.
@safe public struct LcoreCounters {
    public enum Counter: Int, CaseIterable, Sendable { 
        case polls, busyPolls, packets, cyclesBusy, cyclesTotal
        /// Looks at queues that cost a system call which found nothing, and what they cost.
        case emptyLooks, cyclesEmptyLooks
    }

    public static var words: Int { 8 }

    let base: UnsafeMutablePointer<UInt64>

    /// `base` has ``words`` zeroed words and outlives the value.
    public init(at base: UnsafeMutablePointer<UInt64>) { unsafe self.base = base }

    @_noLocks
    func polled(packets: Int, cycles: UInt64) {
        unsafe apus_counter_add(base, 1)
        unsafe apus_counter_add(base + 4, cycles)
        guard packets > 0 else { return }
        unsafe apus_counter_add(base + 1, 1)
        unsafe apus_counter_add(base + 2, UInt64(truncatingIfNeeded: packets))
        unsafe apus_counter_add(base + 3, cycles)
    }

    @_noLocks
    func lookedInVain(cycles: UInt64) {
        unsafe apus_counter_add(base + 5, 1)
        unsafe apus_counter_add(base + 6, cycles)
    }

    public func value(_ counter: Counter) -> UInt64 { unsafe apus_counter_load(base + counter.rawValue) }
}
