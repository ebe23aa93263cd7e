import CDPDK
import Wire

/// What one lcore counted at one port. One writer, relaxed; read from anywhere.
///
/// Every frame the port handed over is in `received`, also one that is dropped at once, so that always:
/// received + created by cutting = transmitted + dropped.
@safe public struct PortCounters {
    public enum Counter: Int, CaseIterable {
        case receivedPackets, receivedBytes, transmittedPackets, transmittedBytes
        case receivedSuperframes, transmittedSuperframes
        /// Packets the lcore made by cutting superframes, less the superframes themselves.
        case created
        /// Bursts sent by a queue that lcores share, and those of them that waited for another lcore.
        case sharedBursts, sharedWaits
    }

    /// 64-bit words of one block, a whole number of cache lines.
    public static var words: Int { (Counter.allCases.count + DropReason.allCases.count + 7) / 8 * 8 }

    let base: UnsafeMutablePointer<UInt64>

    /// `base` has ``words`` zeroed words and outlives the value.
    public init(at base: UnsafeMutablePointer<UInt64>) { unsafe self.base = base }

    @_noLocks public func add(_ counter: Counter, _ n: Int) {
        unsafe apus_counter_add(base + Self.index(counter), UInt64(truncatingIfNeeded: n))
    }

    @_noLocks public func dropped(_ reason: DropReason, _ n: Int = 1) {
        unsafe apus_counter_add(base + (Self.dropBase &+ Int(reason.rawValue)), UInt64(truncatingIfNeeded: n))
    }

    public func value(_ counter: Counter) -> UInt64 { unsafe apus_counter_load(base + Self.index(counter)) }
    public func drops(_ reason: DropReason) -> UInt64 {
        unsafe apus_counter_load(base + Self.dropBase + Int(reason.rawValue))
    }

    static var dropBase: Int { 9 }

    @_noLocks static func index(_ counter: Counter) -> Int {
        switch counter {
        case .receivedPackets: 0
        case .receivedBytes: 1
        case .transmittedPackets: 2
        case .transmittedBytes: 3
        case .receivedSuperframes: 4
        case .transmittedSuperframes: 5
        case .created: 6
        case .sharedBursts: 7
        case .sharedWaits: 8
        }
    }
}

extension PortCounters {
    @_noLocks func transmitted(packets: Int, bytes: Int, superframes: Int) {
        add(.transmittedPackets, packets)
        add(.transmittedBytes, bytes)
        add(.transmittedSuperframes, superframes)
    }

    @_noLocks func transmitted(_ length: Int, _ state: ChecksumState) {
        transmitted(packets: 1, bytes: length, superframes: state.isSuperframe ? 1 : 0)
    }
}
