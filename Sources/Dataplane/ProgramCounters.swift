import CDPDK
import EBPF

/// What one lcore counted at one program of a chain. One writer, relaxed.
@safe public struct ProgramCounters {
    public enum Counter: Int, CaseIterable, Sendable {
        case packets, written, looked, aborted, drop, pass, tx, redirect, cycles
    }

    public static var words: Int { 16 }

    let base: UnsafeMutablePointer<UInt64>

    /// `base` has ``words`` zeroed words and outlives the value.
    public init(at base: UnsafeMutablePointer<UInt64>) { unsafe self.base = base }

    @_noLocks
    func ran(_ effect: Effect) {
        add(0, 1)
        if effect.wrote { add(1, 1) }
        if effect.looked { add(2, 1) }
        switch effect.verdict {
        case .aborted: add(3, 1)
        case .drop: add(4, 1)
        case .pass: add(5, 1)
        case .tx: add(6, 1)
        case .redirect: add(7, 1)
        }
    }

    @_noLocks func spent(cycles: UInt64) { add(8, cycles) }

    @_noLocks private func add(_ word: Int, _ n: UInt64) { unsafe apus_counter_add(base + word, n) }

    public func value(_ counter: Counter) -> UInt64 { unsafe apus_counter_load(base + counter.rawValue) }
}
