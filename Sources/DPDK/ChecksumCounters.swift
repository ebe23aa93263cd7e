import CDPDK
public import Wire

/// What one lcore counted about checksums. One writer, relaxed.
@safe public struct ChecksumCounters {
    /// Why a full checksum was computed in software (checksum contract, section 1). There is no other reason.
    public enum Cause: Int, CaseIterable, Sendable {
        case xdpWrite, xdpRead, egress, segment, verify, driver, mode

        /// As the stats socket spells it.
        public var name: String {
            switch self {
            case .xdpWrite: "xdp_write"
            case .xdpRead: "xdp_read"
            case .egress: "egress"
            case .segment: "segment"
            case .verify: "verify"
            case .driver: "driver"
            case .mode: "mode"
            }
        }
    }

    public enum Work: Int, CaseIterable, Sendable {
        case softwareFullBytes, difference, reseeded, ipHeader, malformed
        /// Packets moved inside their buffer because a program asked for more headroom than there was.
        case headroomMoves
    }

    public static var words: Int { 32 }

    let base: UnsafeMutablePointer<UInt64>

    /// `base` has ``words`` zeroed words and outlives the value.
    public init(at base: UnsafeMutablePointer<UInt64>) { unsafe self.base = base }

    @_noLocks public func transmitted(_ state: ChecksumState) { add(4 &+ Int(Self.place(state))) }
    @_noLocks public func full(_ cause: Cause, bytes: Int) {
        add(8 &+ Self.index(cause))
        unsafe apus_counter_add(base + 16, UInt64(truncatingIfNeeded: bytes))
    }
    @_noLocks public func worked(_ work: Work) { add(16 &+ Self.index(work)) }

    @_noLocks func add(_ word: Int, _ n: Int = 1) {
        unsafe apus_counter_add(base + word, UInt64(truncatingIfNeeded: n))
    }

    // MARK: Reading

    public func received(_ name: Name) -> UInt64 { value(name.rawValue) }
    public func transmitted(_ name: Name) -> UInt64 { value(4 + name.rawValue) }
    public func full(_ cause: Cause) -> UInt64 { value(8 + cause.rawValue) }
    public func value(_ work: Work) -> UInt64 { value(16 + work.rawValue) }

    private func value(_ word: Int) -> UInt64 { unsafe apus_counter_load(base + word) }

    /// The four states the stats socket tells apart.
    public enum Name: Int, CaseIterable, Sendable { case none, bad, unnecessary, partial }

    @_noLocks private static func place(_ state: ChecksumState) -> UInt8 {
        switch state.kind {
        case .none: 0
        case .bad: 1
        case .unnecessary: 2
        case .known, .opaque: 3
        }
    }

    // rawValue of an Int enum goes through a generic witness; these compile to nothing.
    @_noLocks private static func index(_ cause: Cause) -> Int {
        switch cause {
        case .xdpWrite: 0
        case .xdpRead: 1
        case .egress: 2
        case .segment: 3
        case .verify: 4
        case .driver: 5
        case .mode: 6
        }
    }

    @_noLocks private static func index(_ work: Work) -> Int {
        switch work {
        case .softwareFullBytes: 0
        case .difference: 1
        case .reseeded: 2
        case .ipHeader: 3
        case .malformed: 4
        case .headroomMoves: 5
        }
    }
}
