import Testing
@testable import Dataplane

/// When taps are looked at, by a clock of the test's own: one cycle a nanosecond.
@Suite struct PollPacerTests {
    /// Looks as often as allowed for `duration`, polling every `round`.
    private func looks(costing cost: UInt64, for duration: UInt64, round: UInt64, from start: UInt64 = 0) -> (count: UInt64, longestWait: UInt64) {
        var pacer = PollPacer(cyclesPerSecond: 1_000_000_000)
        _ = pacer.looked(began: start &- 1, ended: start)
        var now = start, last = start, count: UInt64 = 0, longest: UInt64 = 0
        while now &- start < duration {
            if pacer.isDue(now) {
                longest = max(longest, now &- last)
                #expect(pacer.looked(began: now, ended: now &+ cost) == min(cost, 10_000))
                now &+= cost
                last = now
                count += 1
            }
            now &+= round
        }
        return (count, longest)
    }

    @Test(arguments: [50, 227, 500, 625] as [UInt64])
    func costsAtMostASixtyFourth(cost: UInt64) {
        let (count, longest) = looks(costing: cost, for: 10_000_000, round: 20)
        #expect(Double(count * cost) / 10_000_000 <= 1 / 64)
        #expect(longest <= 40_000 + 20)
        // Restraint, not neglect: it looks about as often as it may.
        #expect(Double(count * (cost * 65 + 20)) / 10_000_000 > 0.95)
    }

    @Test(arguments: [2000, 1_000_000] as [UInt64])
    func neverWaitsLongerThanFortyMicroseconds(cost: UInt64) {
        #expect(looks(costing: cost, for: 100_000_000, round: 100).longestWait <= 40_000 + 100)
    }

    @Test func theClockMayWrap() {
        let (count, longest) = looks(costing: 500, for: 10_000_000, round: 20, from: UInt64.max - 5_000_000)
        #expect(count > 250 && longest <= 40_020)
    }
}
