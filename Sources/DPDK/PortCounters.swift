import CDPDK
import Wire

/// What one lcore counted at one port. One writer, relaxed; read from anywhere.
///
/// Every frame the port handed over is in `received`, also one that is dropped at once, so that always:
/// received + created = transmitted + dropped.
@safe public struct PortCounters {
    public enum Counter: Int, CaseIterable {
        case receivedPackets, receivedBytes, transmittedPackets, transmittedBytes
        case receivedSuperframes, transmittedSuperframes
        /// Packets the lcore made: by cutting superframes, less the superframes themselves, and by flooding.
        case created
        /// Bursts sent by a queue that lcores share, and those of them that waited for another lcore.
        case sharedBursts, sharedWaits
        /// Packets whose source a bridge had no room to remember.
        case notLearned
    }

    /// 64-bit words of one block, a whole number of cache lines.
    public static var words: Int { (Counter.allCases.count + DropReason.allCases.count + 7) / 8 * 8 }

    let base: UnsafeMutablePointer<UInt64>
    /// Where drops are counted.
    private let drops: UnsafeMutablePointer<UInt64>
    /// Who else wants to know what passes.
    public let capture: CaptureTap?

    /// `base` has ``words`` zeroed words and outlives the value.
    public init(at base: UnsafeMutablePointer<UInt64>, capture: CaptureTap? = nil) {
        unsafe self.init(base, drops: base + Self.dropBase, capture)
    }

    @_noLocks private init(_ base: UnsafeMutablePointer<UInt64>, drops: UnsafeMutablePointer<UInt64>, _ capture: CaptureTap?) {
        unsafe self.base = base
        unsafe self.drops = drops
        self.capture = capture
    }

    /// One packet, which a capture shows with the reason.
    @_noLocks public func dropped(_ reason: DropReason, _ packet: borrowing Packet) {
        dropped(reason)
        capture?.dropped(packet, reason)
    }

    /// A whole burst.
    @_noLocks public func dropped(_ reason: DropReason, _ burst: borrowing Burst) {
        dropped(reason, burst.count)
        guard let capture else { return }
        for index in 0..<burst.count { capture.dropped(burst[index], reason) }
    }

    /// The same port's, but what is dropped is `other`'s: of what a port floods, it bears the loss.
    @_noLocks public func blaming(_ other: PortCounters) -> PortCounters { unsafe PortCounters(base, drops: other.drops, capture) }

    @_noLocks public func add(_ counter: Counter, _ n: Int) {
        unsafe apus_counter_add(base + Self.index(counter), UInt64(truncatingIfNeeded: n))
    }

    @_noLocks public func dropped(_ reason: DropReason, _ n: Int = 1) {
        unsafe apus_counter_add(drops + Int(reason.rawValue), UInt64(truncatingIfNeeded: n))
    }

    public func value(_ counter: Counter) -> UInt64 { unsafe apus_counter_load(base + Self.index(counter)) }
    public func drops(_ reason: DropReason) -> UInt64 {
        unsafe apus_counter_load(base + Self.dropBase + Int(reason.rawValue))
    }

    static var dropBase: Int { 10 }

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
        case .notLearned: 9
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
