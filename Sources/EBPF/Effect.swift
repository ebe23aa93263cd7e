/// The hull of the bytes a run touched: `lower` up to but not including `upper`.
public struct ByteRange: Equatable, Sendable {
    public var lower: Int32
    public var upper: Int32

    @_noLocks
    public init() {
        lower = .max
        upper = .min
    }

    @_noLocks
    public init(_ lower: Int32, _ upper: Int32) {
        self.lower = lower
        self.upper = upper
    }

    public var isEmpty: Bool { @_noLocks get { lower >= upper } }

    @_noLocks @inline(__always)
    public mutating func include(_ lower: Int32, _ upper: Int32) {
        self.lower = min(self.lower, lower)
        self.upper = max(self.upper, upper)
    }
}

/// What one run did to its packet (checksum contract section 3). Positions are in bytes relative to the L3 header the
/// packet arrived with; moving the packet inside its buffer does not change them.
public struct Effect: Sendable {
    public var verdict: XDPVerdict = .aborted
    /// Packet bytes that may have been written, in front of the L3 header and from it on. A grown head or tail counts
    /// as written; metadata does not.
    public var writtenBelowL3 = ByteRange()
    public var writtenFromL3 = ByteRange()
    /// How far `data` and `dataEnd` moved. Negative: grown head, shortened tail.
    public var headDelta: Int32 = 0
    public var tailDelta: Int32 = 0
    /// The lowest `dataEnd` reached, relative to the arrival's: 0 or less.
    public var lowestEnd: Int32 = 0
    /// The packet was moved inside its buffer to make headroom.
    public var moved = false
    /// The program looked at the checksum field of a partial packet, which was finished first.
    public var looked = false

    @_noLocks
    public init() {}

    /// Whether the packet's content or extent may differ from the arrival's. A move alone changes neither.
    public var wrote: Bool {
        @_noLocks get {
            !writtenBelowL3.isEmpty || !writtenFromL3.isEmpty || headDelta != 0 || tailDelta != 0 || lowestEnd != 0
        }
    }

    /// Records bytes `lower` up to `upper`; a range across the L3 header goes to both sides.
    @_noLocks @inline(__always)
    mutating func record(_ lower: Int32, _ upper: Int32) {
        if lower < 0 { writtenBelowL3.include(lower, min(upper, 0)) }
        if upper > 0 { writtenFromL3.include(max(lower, 0), upper) }
    }
}
