import CDPDK
import CLinux

/// What an lcore does about rounds that find nothing.
public enum Idle: Sendable {
    /// Nothing: the next packet waits for nobody.
    case spin
    /// A few hundred cycles for the core's other thread and for its power.
    case pause
    /// Sleeps, once nothing has come for 200 microseconds: a sixteenth of the time since, 50 to 500 microseconds.
    case sleep
}

/// Rests where `idle` says so. Owned by its lcore.
struct Rest {
    private let idle: Idle
    private let patienceCycles: UInt64
    private var lastBusyCycles: UInt64

    init(_ idle: Idle) {
        self.idle = idle
        patienceCycles = apus_cycles_per_second() / 5000
        lastBusyCycles = apus_cycles()
    }

    @_noLocks
    mutating func after(packets: Int, now: UInt64) {
        if packets > 0 { lastBusyCycles = now }
        guard packets == 0 else { return }
        switch idle {
        case .spin: return
        case .pause: for _ in 0..<8 { apus_pause() }
        case .sleep:
            let quietCycles = now &- lastBusyCycles
            guard quietCycles > patienceCycles else { return }
            // patienceCycles are 200 microseconds.
            apus_sleep_microseconds(UInt32(truncatingIfNeeded: min(max(quietCycles &* 25 / (patienceCycles &* 2), 50), 500)))
        }
    }
}
