import CDPDK

/// When a receive queue that costs a system call to look at is looked at next.
///
/// After a look that found nothing the next one waits for 64 times as long as that look took, so that empty looks
/// cost at most 1/64 (1.6 %) of the lcore; but never longer than 40 microseconds, which is what a frame waits at most.
/// A look that found something is followed by another at once. A queue that has its lcore for itself is never paced.
struct PollPacer {
    let isPaced: Bool
    private let pauseCyclesMax: UInt64
    private let lookCyclesMax: UInt64
    private var nextCycles: UInt64 = 0

    init(isPaced: Bool) {
        self.isPaced = isPaced
        pauseCyclesMax = apus_cycles_per_second() / 25_000
        lookCyclesMax = apus_cycles_per_second() / 100_000
    }

    /// The clock starts anywhere: differences wrap on purpose.
    @_noLocks
    func isDue(_ now: UInt64) -> Bool { Int64(bitPattern: now &- nextCycles) >= 0 }

    /// What a look cost. No read takes 10 microseconds: beyond that something else had the core.
    @_noLocks
    func cost(began: UInt64, ended: UInt64) -> UInt64 { min(ended &- began, lookCyclesMax) }

    @_noLocks
    mutating func found(_ count: Int, began: UInt64, ended: UInt64) {
        let pause = min(cost(began: began, ended: ended) &* 64, pauseCyclesMax)
        nextCycles = count > 0 ? ended : ended &+ pause
    }
}
