import CDPDK

/// When an lcore that has other things to poll looks at its taps, which costs a system call for all of them together.
///
/// After a look the next one waits for 64 times as long as that look took, so that looks cost at most 1/64 (1.6 %) of
/// the lcore; but never longer than 40 microseconds, which is what a frame waits at most.
struct PollPacer {
    let pauseCyclesMax: UInt64
    private let lookCyclesMax: UInt64
    private var nextCycles: UInt64 = 0

    init(cyclesPerSecond: UInt64) {
        pauseCyclesMax = cyclesPerSecond / 25_000
        lookCyclesMax = cyclesPerSecond / 100_000
    }

    /// The clock starts anywhere: differences wrap on purpose.
    @_noLocks
    func isDue(_ now: UInt64) -> Bool { Int64(bitPattern: now &- nextCycles) >= 0 }

    /// - Returns: what the look cost. None takes 10 microseconds: beyond that something else had the core.
    @_noLocks
    mutating func looked(began: UInt64, ended: UInt64) -> UInt64 {
        let cost = min(ended &- began, lookCyclesMax)
        nextCycles = ended &+ min(cost &* 64, pauseCyclesMax)
        return cost
    }
}
