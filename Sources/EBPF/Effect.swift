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

/// Where `bpf_redirect` or `bpf_redirect_map` wants a packet; it counts if the verdict is `redirect`.
public struct RedirectTarget: Equatable, Sendable {
    /// The map's address, for `LoadedProgram.map(at:)`; 0: `index` is an interface's.
    public var map: UInt64 = 0
    /// Key in the map, or interface index.
    public var index: UInt32 = 0
    /// `BPF_F_BROADCAST`, `BPF_F_EXCLUDE_INGRESS`
    public var flags: UInt64 = 0

    @_noLocks
    public init() {}

    @_noLocks
    public init(map: UInt64, index: UInt32, flags: UInt64) {
        self.map = map
        self.index = index
        self.flags = flags
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
    /// A store ran that may have put a zero into UDP's checksum field which derives from nothing: "no checksum". A zero
    /// found there after any other run is what its arithmetic made of a seed.
    public var cleared = false
    public var redirect = RedirectTarget()
    /// Sandbox: what the program was stopped for; its verdict is then `aborted`.
    public var fault = Fault.none

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
