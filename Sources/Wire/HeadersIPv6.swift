/// IPv6 and its extension headers (RFC 8200 section 4).
extension Headers {
    /// Extension headers the parser follows; more of them are carried, not understood.
    static var extensionCountMax: Int { 8 }

    /// Finds an IPv6 packet's headers where the IP header begins `l3` bytes into the frame.
    @_noLocks
    public static func parseIPv6(_ frame: UnsafeRawPointer, l3: Int, available: Int, length: Int,
                                 isSuperframe: Bool) -> Headers {
        var found = Headers()
        found.network = .ipv6
        found.l3 = l3
        found.destination = l3 &+ 24
        found.isMalformed = true
        guard l3 &+ 40 <= available, unsafe (frame.byte(l3) &>> 4) == 6 else { return found }
        var payload = unsafe Int(frame.bigEndian16(l3 &+ 4))
        if payload == 0, isSuperframe { payload = length &- l3 &- 40 }
        let end = l3 &+ 40 &+ payload
        guard end <= length else { return found }
        found.isMalformed = false
        var next = unsafe IPProtocol(rawValue: frame.byte(l3 &+ 6))
        var at = l3 &+ 40
        if next != .tcp, next != .udp {
            guard unsafe found.followExtensions(frame, &next, &at, end: min(end, available)) else { return found }
        }
        unsafe found.parseTransport(frame, next, l4: at, payload: end &- at, available: available, length: length,
                                    mayLackLength: isSuperframe)
        return found
    }

    /// Walks to the transport header: `next` and `at` are its protocol and place afterwards. False where the
    /// headers do not fit before `end`, and the packet is marked malformed; or where there are too many.
    @_noLocks
    private mutating func followExtensions(_ frame: UnsafeRawPointer, _ next: inout IPProtocol, _ at: inout Int,
                                           end: Int) -> Bool {
        for _ in 0..<Self.extensionCountMax {
            guard next.isExtensionHeader else { return true }
            guard at &+ 8 <= end else { isMalformed = true; return false }
            let units = unsafe Int(frame.byte(at &+ 1))
            // RFC 4302 section 2.2 counts in fours, less two; a fragment header has eight bytes.
            let size = next == .authentication ? (units &+ 2) &* 4 : next == .fragment ? 8 : (units &+ 1) &* 8
            guard at &+ size <= end else { isMalformed = true; return false }
            if next == .fragment { isFragment = true }
            else if next == .authentication { hasUncertainPseudoHeader = !Planted.breaks(.authentication) }
            else if next == .destinationOptions { unsafe readDestinationOptions(frame, from: at &+ 2, to: at &+ size) }
            else if next == .routing { unsafe readRouting(frame, at, size: size) }
            next = unsafe IPProtocol(rawValue: frame.byte(at))
            at &+= size
            // What follows a fragment header may be the middle of anything.
            if isFragment { return true }
        }
        return !next.isExtensionHeader
    }

    /// A Home Address option (201, RFC 6275 section 6.3) stands for the source; options that do not parse count too.
    @_noLocks
    private mutating func readDestinationOptions(_ frame: UnsafeRawPointer, from: Int, to: Int) {
        var at = from
        while at < to {
            let kind = unsafe frame.byte(at)
            if kind == 0 { at &+= 1; continue }
            guard kind != 201 || Planted.breaks(.homeAddress), at &+ 2 <= to else { hasUncertainPseudoHeader = true; return }
            at &+= unsafe 2 &+ Int(frame.byte(at &+ 1))
        }
        if at > to { hasUncertainPseudoHeader = true }
    }

    /// While segments are left the pseudo-header names the last one (RFC 8200 section 8.1): Linux seeds so.
    @_noLocks
    private mutating func readRouting(_ frame: UnsafeRawPointer, _ at: Int, size: Int) {
        let kind = unsafe frame.byte(at &+ 2), left = unsafe Int(frame.byte(at &+ 3))
        let addresses = (size &- 8) / 16
        switch kind {
        case 0 where left <= addresses && size & 15 == 8, 2 where left <= 1 && addresses == 1,
             4 where left < addresses:
            guard left > 0 else { return }
            // RFC 2460 section 4.4 has the last one last; RFC 6275 section 6.4 has one, RFC 8754 section 2 the
            // last one first.
            destination = at &+ 8 &+ (kind == 0 ? (addresses &- 1) &* 16 : 0)
        case 4 where left == 0:
            return
        default:
            hasUncertainPseudoHeader = !Planted.breaks(.unknownRouting)
        }
        if Planted.breaks(.headerDestination) { destination = l3 &+ 24 }
    }
}

extension IPProtocol {
    @inlinable static var routing: IPProtocol { IPProtocol(rawValue: 43) }
    @inlinable static var fragment: IPProtocol { IPProtocol(rawValue: 44) }
    @inlinable static var authentication: IPProtocol { IPProtocol(rawValue: 51) }
    @inlinable static var destinationOptions: IPProtocol { IPProtocol(rawValue: 60) }

    /// Hop-by-hop options, and those above.
    @inlinable var isExtensionHeader: Bool {
        switch rawValue {
        case 0, 43, 44, 51, 60: true
        default: false
        }
    }
}
