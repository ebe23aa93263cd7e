/// The hull of some bytes: `lower` up to but not including `upper`.
public struct ByteRange: Equatable, Sendable {
    public var lower: Int32
    public var upper: Int32

    public init() {
        lower = .max
        upper = .min
    }

    public init(_ lower: Int32, _ upper: Int32) {
        self.lower = lower
        self.upper = upper
    }

    public var isEmpty: Bool { lower >= upper }

    @inline(__always)
    public mutating func include(_ lower: Int32, _ upper: Int32) {
        self.lower = min(self.lower, lower)
        self.upper = max(self.upper, upper)
    }
}

/// Bytes of a packet that may have been written, counted from the first byte it arrived with. Each of the first 64 is
/// known by itself, which is where headers are; those behind them as one hull. In front of the first byte there is only
/// what a grown head brought in.
///
/// A bit a byte makes recording a constant where the place is known while compiling, wherever the L3 header is; all zeros
/// is nothing, so that a fresh record is cleared memory.
public struct WrittenBytes: Equatable, Sendable {
    /// Bytes known one by one.
    package static var window: Int { @_noLocks get { 64 } }

    /// Bit n: byte n.
    private(set) var first: UInt64 = 0
    /// Bytes in front of the first.
    private(set) var before: UInt32 = 0
    /// The hull of what lies at `window` and behind it; both are 0 where that is nothing.
    private(set) var restLower: UInt32 = 0
    private(set) var restUpper: UInt32 = 0

    @_noLocks
    public init() {}

    public var isEmpty: Bool { @_noLocks get { first == 0 && before == 0 && restUpper == 0 } }

    /// One behind the last byte; 0: nothing behind the arrival's first byte was written.
    public var end: Int {
        @_noLocks get { restUpper != 0 ? Int(restUpper) : WrittenBytes.window &- first.leadingZeroBitCount }
    }

    /// Whether any byte is `from` or lies behind it. `from` is not negative.
    @_noLocks @inline(__always)
    public func reaches(from: Int) -> Bool { end > from }

    /// Whether any of the bytes `lower` up to `upper` is among them. `lower` is not negative.
    @_noLocks
    public func overlaps(_ lower: Int, _ upper: Int) -> Bool {
        if lower < WrittenBytes.window, first & WrittenBytes.bits(lower, min(upper, WrittenBytes.window)) != 0 { return true }
        return max(lower, Int(restLower)) < min(upper, Int(restUpper))
    }

    /// In order, none touching the next.
    public var ranges: [ByteRange] {
        var ranges: [ByteRange] = []
        func add(_ lower: Int, _ upper: Int) {
            let (lower, upper) = (Int32(truncatingIfNeeded: lower), Int32(truncatingIfNeeded: upper))
            if lower >= upper { return }
            if let last = ranges.indices.last, ranges[last].upper == lower { ranges[last].upper = upper } else { ranges.append(ByteRange(lower, upper)) }
        }
        add(-Int(before), 0)
        for byte in 0..<WrittenBytes.window where first & 1 << UInt64(byte) != 0 { add(byte, byte + 1) }
        add(Int(restLower), Int(restUpper))
        return ranges
    }

    /// Bits `lower` up to `upper`, of 64; none where that is nothing.
    @_noLocks @inline(__always)
    package static func bits(_ lower: Int, _ upper: Int) -> UInt64 {
        lower < upper ? (UInt64.max &>> UInt64(64 &- (upper &- lower))) &<< UInt64(lower) : 0
    }

    @_noLocks @inline(__always)
    public mutating func record(_ lower: Int, _ upper: Int) {
        guard lower < upper else { return }
        if lower < 0 { before = max(before, UInt32(truncatingIfNeeded: 0 &- lower)) }
        first |= WrittenBytes.bits(max(lower, 0), min(upper, WrittenBytes.window))
        if upper > WrittenBytes.window { recordRest(max(lower, WrittenBytes.window), upper) }
    }

    /// Packets are shorter than 2 GiB.
    @_noLocks @inline(never)
    private mutating func recordRest(_ lower: Int, _ upper: Int) {
        restLower = restUpper == 0 ? UInt32(truncatingIfNeeded: lower) : min(restLower, UInt32(truncatingIfNeeded: lower))
        restUpper = max(restUpper, UInt32(truncatingIfNeeded: upper))
    }

    /// Bit n of `bits`: byte `place` + n.
    @_noLocks
    mutating func record(_ bits: UInt64, at place: Int) {
        var bits = bits
        while bits != 0 {
            let lower = bits.trailingZeroBitCount, count = (~(bits &>> UInt64(lower))).trailingZeroBitCount
            record(place &+ lower, place &+ lower &+ count)
            bits &= ~WrittenBytes.bits(lower, lower &+ count)
        }
    }

    @_noLocks
    mutating func include(_ other: WrittenBytes) {
        first |= other.first
        before = max(before, other.before)
        if other.restUpper != 0 { recordRest(Int(other.restLower), Int(other.restUpper)) }
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

/// What one run did to its packet (checksum contract section 3). Nothing is all zeros. Moving the packet inside its buffer
/// changes no position.
public struct Effect: Sendable {
    /// Packet bytes that may have been written. A grown head or tail counts as written; metadata does not.
    public var written = WrittenBytes()
    /// How far `data` and `dataEnd` moved. Negative: grown head, shortened tail.
    public var headDelta: Int32 = 0
    public var tailDelta: Int32 = 0
    /// The lowest `dataEnd` reached, relative to the arrival's: 0 or less.
    public var lowestEnd: Int32 = 0
    public var redirect = RedirectTarget()
    public var verdict: XDPVerdict = .aborted
    /// The packet was moved inside its buffer to make headroom.
    public var moved = false
    /// The program looked at the checksum field of a partial packet, which was finished first.
    public var looked = false
    /// A store ran that may have put a zero into UDP's checksum field which derives from nothing: "no checksum". A zero
    /// found there after any other run is what its arithmetic made of a seed.
    public var cleared = false
    /// Sandbox: what the program was stopped for; its verdict is then `aborted`.
    public var fault = Fault.none

    @_noLocks
    public init() {}

    /// Whether the packet's content or extent may differ from the arrival's. A move alone changes neither.
    public var wrote: Bool {
        @_noLocks get { !written.isEmpty || headDelta != 0 || tailDelta != 0 || lowestEnd != 0 }
    }
}
