/// What is known about a packet's L4 checksum, and how a superframe is to be cut: the one state that
/// travels with every packet (checksum contract, section 2). Eight bytes, in one dynamic mbuf field.
///
/// It has no direction: only ports map it to receive or transmit flags. It is changed by the named
/// transitions below and by nothing else.
public struct ChecksumState: Equatable, Sendable {
    public enum Kind: UInt8, CaseIterable, Sendable {
        /// Nothing known: the bytes are what the sender wrote.
        case none
        /// The device says the checksum is wrong.
        case bad
        /// The checksum at `start + offset` was verified and stands in the bytes.
        case unnecessary
        /// TCP or UDP of a header the parser reached; the field holds that header's pseudo-header sum.
        case known
        /// "Sum from `start` to the end, store at `offset`", and nothing else is known of it.
        case opaque
    }

    /// How a superframe is cut (virtio 1.2, 5.1.6: gso_type).
    public enum Segmentation: UInt8, Sendable {
        case none = 0, tcp4 = 1
        /// UFO: one datagram, cut into IP fragments.
        case udpFragment = 3
        case tcp6 = 4
        /// USO: cut into datagrams. Never sent as UFO, nor the other way round.
        case udpDatagrams = 5
    }

    /// kind:8 segmentation:7 ecn:1 gsoSize:16 start:16 offset:16, from the lowest bit up.
    public let rawValue: UInt64

    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable init(_ kind: Kind, _ segmentation: Segmentation = .none, congestion: Bool = false,
                    segmentSize: UInt16 = 0, start: UInt16 = 0, offset: UInt16 = 0) {
        rawValue = UInt64(kind.rawValue) | UInt64(segmentation.rawValue) &<< 8 | (congestion ? 1 &<< 15 : 0)
            | UInt64(segmentSize) &<< 16 | UInt64(start) &<< 32 | UInt64(offset) &<< 48
    }

    // MARK: What it says

    @inlinable @inline(__always) public var kind: Kind {
        switch UInt8(truncatingIfNeeded: rawValue) {
        case 1: .bad
        case 2: .unnecessary
        case 3: .known
        case 4: .opaque
        default: .none
        }
    }

    @inlinable @inline(__always) public var segmentation: Segmentation {
        switch UInt8(truncatingIfNeeded: rawValue &>> 8) & 0x7f {
        case 1: .tcp4
        case 3: .udpFragment
        case 4: .tcp6
        case 5: .udpDatagrams
        default: .none
        }
    }

    /// TCP's CWR bit goes on the first segment only (virtio: VIRTIO_NET_HDR_GSO_ECN).
    @inlinable public var hasCongestionBit: Bool { rawValue & 1 &<< 15 != 0 }
    /// Payload bytes of one segment; 0 where the packet is no superframe.
    @inlinable public var segmentSize: UInt16 { UInt16(truncatingIfNeeded: rawValue &>> 16) }
    /// Bytes from the frame's first to the first one summed (virtio: csum_start).
    @inlinable public var start: UInt16 { UInt16(truncatingIfNeeded: rawValue &>> 32) }
    /// Bytes from `start` to the checksum field (virtio: csum_offset).
    @inlinable public var offset: UInt16 { UInt16(truncatingIfNeeded: rawValue &>> 48) }
    /// Where the checksum field stands in the frame.
    @inlinable public var field: Int { Int(start) &+ Int(offset) }

    @inlinable @inline(__always) public var isPartial: Bool { kind == .known || kind == .opaque }
    /// Trusted in the contract's sense: the packet may leave as verified or unfinished.
    @inlinable @inline(__always) public var isTrusted: Bool { isPartial || kind == .unnecessary }
    @inlinable @inline(__always) public var isSuperframe: Bool { segmentation != .none }

    // MARK: Where it begins

    @inlinable public static var none: ChecksumState { ChecksumState(.none) }
    @inlinable public static var bad: ChecksumState { ChecksumState(.bad) }

    @inlinable public static func unnecessary(start: UInt16, offset: UInt16) -> ChecksumState {
        ChecksumState(.unnecessary, start: start, offset: offset)
    }

    @inlinable public static func known(start: UInt16, offset: UInt16) -> ChecksumState {
        ChecksumState(.known, start: start, offset: offset)
    }

    @inlinable public static func opaque(start: UInt16, offset: UInt16) -> ChecksumState {
        ChecksumState(.opaque, start: start, offset: offset)
    }

    // MARK: Transitions

    /// The packet is a superframe that is cut into payloads of `segmentSize` bytes.
    @inlinable public func superframe(_ segmentation: Segmentation, segmentSize: UInt16,
                                      congestion: Bool) -> ChecksumState {
        ChecksumState(kind, segmentation, congestion: congestion, segmentSize: segmentSize, start: start, offset: offset)
    }

    /// The packet is one segment from here on.
    @inlinable public var segmented: ChecksumState { ChecksumState(kind, start: start, offset: offset) }

    /// The checksum now stands complete in the bytes. Opaque ones become `none`: nobody knows what was
    /// summed, so nothing can keep it right after a later write.
    @inlinable public var completed: ChecksumState {
        kind == .opaque ? becoming(.none) : becoming(.unnecessary)
    }

    /// The field was rewritten to the pseudo-header sum of the header at `start`.
    @inlinable public func reseeded(start: UInt16, offset: UInt16) -> ChecksumState {
        ChecksumState(.known, segmentation, congestion: hasCongestionBit, segmentSize: segmentSize,
                      start: start, offset: offset)
    }

    /// The same bytes now begin `delta` further from the frame's first byte. The caller checked the range.
    @inlinable public func moved(by delta: Int) -> ChecksumState {
        ChecksumState(kind, segmentation, congestion: hasCongestionBit, segmentSize: segmentSize,
                      start: UInt16(truncatingIfNeeded: Int(start) &+ delta), offset: offset)
    }

    /// Other headers now stand around it: kept literally, never reseeded.
    @inlinable public var enclosed: ChecksumState { kind == .known ? becoming(.opaque) : self }

    /// What was known no longer holds: the program's bytes stand.
    @inlinable public var forgotten: ChecksumState { becoming(.none) }

    @inlinable func becoming(_ kind: Kind) -> ChecksumState {
        ChecksumState(kind, segmentation, congestion: hasCongestionBit, segmentSize: segmentSize,
                      start: kind == .none || kind == .bad ? 0 : start, offset: kind == .none || kind == .bad ? 0 : offset)
    }
}
