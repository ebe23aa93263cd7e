/// Where a frame's headers stand, as far as the parser reaches: Ethernet, up to two VLAN tags, IPv4 with
/// options or IPv6 with extension headers, a transport that has a checksum. Everything else is carried, not
/// understood.
public struct Headers: Equatable, Sendable {
    public enum Network: UInt8, Sendable { case other, ipv4, ipv6 }

    public enum Transport: UInt8, Sendable {
        /// Not IP, or an IP protocol or extension header the parser does not follow.
        case other
        case tcp, udp
        /// CRC-32C instead of a sum; no pseudo-header (RFC 9260 section 6.8).
        case sctp
        /// No pseudo-header (RFC 792).
        case icmp
        /// With a pseudo-header (RFC 4443 section 2.3).
        case icmp6
    }

    public internal(set) var network = Network.other
    public internal(set) var transport = Transport.other
    /// An IP packet whose lengths contradict each other or the frame: nothing behind them is believed.
    public internal(set) var isMalformed = false
    public internal(set) var isFragment = false
    /// Options or extension headers that change which destination the checksum covers may be present.
    public internal(set) var hasUncertainPseudoHeader = false
    /// Bytes from the frame's first to the IP header, or to whatever follows the link layer.
    public internal(set) var l3 = 0
    /// Bytes from the frame's first to the transport header; 0 where there is none.
    public internal(set) var l4 = 0
    /// Bytes from the frame's first to the destination that the pseudo-header names: IPv6's own, or the last
    /// segment of a routing header. 0 for IPv4.
    public internal(set) var destination = 0
    /// Bytes of the transport header: TCP's data offset, UDP's eight.
    public internal(set) var transportHeaderLength = 0
    /// Bytes the transport checksum covers, its header included. For UDP the smaller of its own length
    /// and IP's. 0 where there is no transport.
    public internal(set) var transportLength = 0
    /// Bytes of the frame behind the transport datagram: padding, which no checksum covers.
    public internal(set) var trailingBytes = 0

    @inlinable public init() {}

    /// True where the transport checksum's place and pseudo-header are certain.
    @inlinable public var hasCertainChecksum: Bool {
        transport != .other && !isMalformed && !isFragment && !hasUncertainPseudoHeader
    }

    /// The same, and it is one that can be left unfinished: TCP's or UDP's.
    @inlinable public var hasKnownChecksum: Bool {
        (transport == .tcp || transport == .udp) && !isMalformed && !isFragment && !hasUncertainPseudoHeader
    }

    /// Extension headers stand between the IPv6 header and the transport.
    @inlinable public var hasExtensions: Bool { network == .ipv6 && l4 > l3 &+ 40 }

    /// Bytes from the transport header to its checksum field (RFC 9293 section 3.1, RFC 768, RFC 9260
    /// section 3.1, RFC 792, RFC 4443 section 2.1).
    @inlinable public var checksumOffset: Int {
        switch transport {
        case .udp: 6
        case .sctp: 8
        case .icmp, .icmp6: 2
        case .tcp, .other: 16
        }
    }
    @inlinable public var checksumField: Int { l4 &+ checksumOffset }
    @inlinable public var payload: Int { l4 &+ transportHeaderLength }
}

extension Headers {
    /// Finds the headers of a frame.
    /// - Parameters:
    ///   - frame: the frame's first byte.
    ///   - available: bytes readable from there (the first segment).
    ///   - length: bytes of the whole frame.
    ///   - isSuperframe: then a length field of 0 means "to the end of the frame" (frames past 64 KB).
    @_noLocks
    public static func parse(_ frame: UnsafeRawPointer, available: Int, length: Int, isSuperframe: Bool) -> Headers {
        var at = 12
        var tags = 0
        while true {
            guard at &+ 2 <= available else { return Headers() }
            let type = unsafe EtherType(rawValue: frame.bigEndian16(at))
            at &+= 2
            if type == .ipv4 {
                return unsafe parseIPv4(frame, l3: at, available: available, length: length, isSuperframe: isSuperframe)
            }
            if type == .ipv6 {
                return unsafe parseIPv6(frame, l3: at, available: available, length: length, isSuperframe: isSuperframe)
            }
            guard type.isVLAN, tags < 2 else {
                var other = Headers()
                other.l3 = at
                return other
            }
            tags &+= 1
            at &+= 2
        }
    }

    /// Finds an IPv4 packet's headers where the IP header begins `l3` bytes into the frame (RFC 791).
    @_noLocks
    public static func parseIPv4(_ frame: UnsafeRawPointer, l3: Int, available: Int, length: Int,
                                 isSuperframe: Bool) -> Headers {
        var found = Headers()
        found.network = .ipv4
        found.l3 = l3
        found.isMalformed = true
        guard l3 &+ 20 <= available else { return found }
        let first = unsafe frame.byte(l3)
        let headerLength = Int(first & 0x0f) &* 4
        guard first &>> 4 == 4, headerLength >= 20, l3 &+ headerLength <= available else { return found }
        var total = unsafe Int(frame.bigEndian16(l3 &+ 2))
        if total == 0, isSuperframe { total = length &- l3 }
        guard total >= headerLength, l3 &+ total <= length else { return found }
        found.isMalformed = false
        found.isFragment = unsafe frame.bigEndian16(l3 &+ 6) & 0x3fff != 0
        // A source route names another destination than the one the checksum covers (RFC 791 section 3.1).
        found.hasUncertainPseudoHeader = unsafe headerLength > 20 && !Planted.breaks(.sourceRoute)
            && hasSourceRoute(frame, from: l3 &+ 20, to: l3 &+ headerLength)
        let proto = unsafe IPProtocol(rawValue: frame.byte(l3 &+ 9))
        unsafe found.parseTransport(frame, proto, l4: l3 &+ headerLength, payload: total &- headerLength,
                                    available: available, length: length, mayLackLength: isSuperframe)
        return found
    }

    /// `payload` bytes from `l4` on belong to the IP packet; the caller checked that the frame has them.
    @_noLocks
    mutating func parseTransport(_ frame: UnsafeRawPointer, _ proto: IPProtocol, l4 at: Int, payload: Int,
                                 available: Int, length: Int, mayLackLength: Bool) {
        trailingBytes = length &- at &- payload
        guard !isFragment else { return }
        if proto == .tcp {
            guard payload >= 20, at &+ 20 <= available else { isMalformed = true; return }
            let headerLength = unsafe Int(frame.byte(at &+ 12) &>> 4) &* 4
            guard headerLength >= 20, headerLength <= payload, at &+ headerLength <= available else {
                isMalformed = true
                return
            }
            transport = .tcp
            transportHeaderLength = headerLength
            transportLength = payload
        } else if proto == .udp {
            guard payload >= 8, at &+ 8 <= available else { isMalformed = true; return }
            var own = unsafe Int(frame.bigEndian16(at &+ 4))
            // A superframe of datagrams may come without a length, as IP's.
            if own == 0, mayLackLength { own = payload }
            guard own >= 8, own <= payload else { isMalformed = true; return }
            transport = .udp
            transportHeaderLength = 8
            transportLength = Planted.breaks(.udpLength) ? payload : own
            trailingBytes &+= payload &- own
        } else {
            parseOther(proto, l4: at, payload: payload, available: available)
        }
        if transport != .other { l4 = at }
    }

    /// Those that never travel unfinished.
    @_noLocks
    mutating func parseOther(_ proto: IPProtocol, l4 at: Int, payload: Int, available: Int) {
        let found: Transport, headerLength: Int
        if proto == .sctp { (found, headerLength) = (.sctp, 12) }
        else if proto == .icmp, network == .ipv4 { (found, headerLength) = (.icmp, 4) }
        else if proto == .icmp6, network == .ipv6 { (found, headerLength) = (.icmp6, 4) }
        else { return }
        guard payload >= headerLength, at &+ headerLength <= available else { isMalformed = true; return }
        transport = found
        transportHeaderLength = headerLength
        transportLength = payload
    }

    /// Loose (131) or strict (137) source route among the options; an option that does not parse counts too.
    @_noLocks
    static func hasSourceRoute(_ frame: UnsafeRawPointer, from: Int, to: Int) -> Bool {
        var at = from
        while at < to {
            let kind = unsafe frame.byte(at)
            if kind == 0 { return false }
            if kind == 1 { at &+= 1; continue }
            guard kind != 131, kind != 137, at &+ 2 <= to else { return true }
            let step = unsafe Int(frame.byte(at &+ 1))
            guard step >= 2 else { return true }
            at &+= step
        }
        return false
    }
}
