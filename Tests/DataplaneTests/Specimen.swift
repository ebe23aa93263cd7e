/// One packet of the matrix, built layer by layer with right checksums everywhere. What is known of it is known
/// from building it: nothing here parses, and nothing comes from Wire or Dataplane.
struct Specimen: Sendable {
    enum Transport: String, CaseIterable, Sendable { case tcp, udp, sctp, icmp }
    enum Network: String, CaseIterable, Sendable {
        case ipv4, options = "ipv4 options", sourceRoute = "ipv4 source route", ipv6
        case hopByHop = "hop by hop", destination = "destination options", both = "hop by hop and destination options"
        case routing0 = "routing type 0", routing2 = "routing type 2", segments = "segment routing", visited = "segments all visited"
        case unknownRouting = "unknown routing", homeAddress = "home address", authentication = "authentication"
    }
    enum Tunnel: String, CaseIterable, Sendable { case plain, ipip, gre, vxlan, vxlanWithout = "vxlan without checksum" }

    let transport: Transport, network: Network, tunnel: Tunnel, tags: Int, padding: Int
    /// Right everywhere.
    private(set) var finished: [UInt8] = []
    /// Where the outermost network header, the named transport header and its datagram's end stand.
    private(set) var l3 = 0, l4 = 0, end = 0
    private var sourceAt = 0, destinationAt = 0, addressBytes = 4
    private(set) var headerLength = 0
    /// Where one header ends and the next begins.
    private(set) var boundaries: [Int] = []
    /// The enclosing UDP header, where it has a checksum.
    private(set) var enclosing: (ip: Int, udp: Int)?

    /// Behind the source address's last byte, and the first of the destination that the checksum covers.
    var sourceEnd: Int { sourceAt + addressBytes }
    var destinationStart: Int { destinationAt }
    var isIPv6: Bool { addressBytes == 16 }
    var offset: Int { switch transport { case .tcp: 16; case .udp: 6; case .sctp: 8; case .icmp: 2 } }
    var field: Int { l4 + offset }
    var proto: Int { switch transport { case .tcp: 6; case .udp: 17; case .sctp: 132; case .icmp: isIPv6 ? 58 : 1 } }
    /// Contract section 2: TCP or UDP of the outermost header, its pseudo-header certain.
    var isKnown: Bool { tunnel == .plain && hasCertainPseudoHeader && (transport == .tcp || transport == .udp) }
    var hasCertainPseudoHeader: Bool { ![.sourceRoute, .unknownRouting, .homeAddress, .authentication].contains(network) }
    var hasExtensions: Bool { isIPv6 && network != .ipv6 }
    var name: String { "\(transport.rawValue) over \(network.rawValue), \(tunnel.rawValue), \(tags) tags, \(padding) padding" }

    init(_ transport: Transport, _ network: Network, tunnel: Tunnel = .plain, tags: Int = 0, payload: Int = 77, padding: Int = 0) {
        (self.transport, self.network, self.tunnel, self.tags, self.padding) = (transport, network, tunnel, tags, padding)
        let isIPv6 = ![Network.ipv4, .options, .sourceRoute].contains(network)
        addressBytes = isIPv6 ? 16 : 4
        let extensions = Self.extensions(network, next: UInt8(proto))
        let body = Self.body(transport, payload)
        var link: [UInt8] = [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa]
        for tag in 0..<tags { link += tag == 0 && tags == 2 ? [0x88, 0xa8, 0x20, 20] : [0x81, 0, 0, UInt8(10 + tag)] }
        let type: [UInt8] = isIPv6 ? [0x86, 0xdd] : [8, 0]
        let inner = (isIPv6 ? 40 : 20) + extensions.bytes.count + body.count
        let outer = Self.outer(tunnel, inner: inner, isIPv6: isIPv6, type: type)
        finished = link + (tunnel == .plain ? type : [8, 0])
        l3 = finished.count
        finished += outer
        if tunnel != .plain { boundaries += [l3 + 20, finished.count] }
        let ip = finished.count
        if isIPv6 {
            finished += [0x60, 0, 0, 0] + Self.stated(extensions.bytes.count + body.count) + [extensions.first, 64]
                + (0..<32).map { UInt8($0 * 5 + 3) }
            sourceAt = ip + 8
            destinationAt = extensions.destination.map { ip + 40 + $0 } ?? ip + 24
        } else {
            finished += [UInt8(0x45 + extensions.bytes.count / 4), 0] + Self.stated(inner)
                + [0x12, 0x34, 0x40, 0, 64, UInt8(proto), 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
            sourceAt = ip + 12
            destinationAt = ip + 16
        }
        finished += extensions.bytes
        l4 = finished.count
        boundaries += [l3, ip, l4, l4 + Self.headerBytes(transport)]
        headerLength = Self.headerBytes(transport)
        finished += body
        end = finished.count
        if transport == .udp { Reference.put(&finished, l4 + 4, body.count & 0xffff) }
        finished += [UInt8](repeating: 0xee, count: padding)
        if !isIPv6 { Self.finishIPv4(&finished, ip) }
        if tunnel != .plain { Self.finishIPv4(&finished, l3) }
        if tunnel == .vxlan { enclosing = (l3, l3 + 20) }
        finish(&finished)
    }

    // MARK: Layers

    private static func stated(_ length: Int) -> [UInt8] { Reference.bytes16(length > 0xffff ? 0 : length) }

    static func headerBytes(_ transport: Transport) -> Int { switch transport { case .tcp: 20; case .udp: 8; case .sctp: 12; case .icmp: 4 } }

    private static func body(_ transport: Transport, _ payload: Int) -> [UInt8] {
        let header: [UInt8] = switch transport {
        case .tcp: [0x1f, 0x90, 0xc0, 0x01, 0, 0, 0x10, 0, 0, 0, 0x20, 0, 0x50, 0x98, 1, 0, 0, 0, 0, 0]
        case .udp: [0x1f, 0x90, 0xc0, 0x01, 0, 0, 0, 0]
        case .sctp: [0x1f, 0x90, 0xc0, 0x01, 1, 2, 3, 4, 0, 0, 0, 0]
        case .icmp: [128, 0, 0, 0]
        }
        return header + (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 11) }
    }

    /// Options or extension headers, the first one's number, and where among them the final destination stands.
    private static func extensions(_ network: Network, next: UInt8) -> (bytes: [UInt8], first: UInt8, destination: Int?) {
        let addresses = (0..<32).map { UInt8($0 &* 7 &+ 0x21) }
        switch network {
        case .ipv4, .ipv6: return ([], next, nil)
        case .options: return ([1, 1, 1, 0], next, nil)
        case .sourceRoute: return ([131, 7, 4, 10, 9, 9, 9, 0], next, nil)
        case .hopByHop: return ([next, 0, 1, 4, 0, 0, 0, 0], 0, nil)
        case .destination: return ([next, 1, 1, 12] + [UInt8](repeating: 0, count: 12), 60, nil)
        case .both: return ([60, 0, 5, 2, 0, 0, 1, 0, next, 0, 1, 4, 0, 0, 0, 0], 0, nil)
        case .routing0: return ([next, 4, 0, 1, 0, 0, 0, 0] + addresses, 43, 24)
        case .routing2: return ([next, 2, 2, 1, 0, 0, 0, 0] + addresses.prefix(16), 43, 8)
        case .segments: return ([next, 4, 4, 1, 1, 0, 0, 0] + addresses, 43, 8)
        case .visited: return ([next, 4, 4, 0, 1, 0, 0, 0] + addresses, 43, nil)
        case .unknownRouting: return ([next, 4, 3, 1, 0, 0, 0, 0] + addresses, 43, 24)
        case .homeAddress: return ([next, 2, 201, 16] + addresses.prefix(16) + [1, 2, 0, 0], 60, nil)
        case .authentication: return ([next, 4] + [UInt8](repeating: 0x5a, count: 22), 51, nil)
        }
    }

    private static func outer(_ tunnel: Tunnel, inner: Int, isIPv6: Bool, type: [UInt8]) -> [UInt8] {
        let middle: [UInt8], proto: UInt8
        switch tunnel {
        case .plain: return []
        case .ipip: (middle, proto) = ([], isIPv6 ? 41 : 4)
        case .gre: (middle, proto) = ([0, 0] + type, 47)
        case .vxlan, .vxlanWithout:
            middle = [0xc0, 0, 0x12, 0xb5] + Reference.bytes16(inner + 30) + [0, 0, 8, 0, 0, 0, 0, 0, 42, 0]
                + [2, 0, 0, 0, 0, 0xd, 2, 0, 0, 0, 0, 0xc] + type
            proto = 17
        }
        return [0x45, 0] + Reference.bytes16(20 + middle.count + inner) + [0, 7, 0x40, 0, 64, proto, 0, 0, 192, 168, 0, 1, 192, 168, 0, 2] + middle
    }

    // MARK: Checksums

    private static func finishIPv4(_ frame: inout [UInt8], _ at: Int) {
        Reference.put(&frame, at + 10, 0)
        Reference.put(&frame, at + 10, ~Reference.sum(frame[at..<at + Int(frame[at] & 15) * 4]) & 0xffff)
    }

    /// The pseudo-header sum of `frame`, whose link layer is `shift` bytes longer than this one's.
    func seed(_ frame: [UInt8], shift: Int = 0, length: Int? = nil) -> Int {
        guard transport == .tcp || transport == .udp || proto == 58 else { return 0 }
        let length = length ?? end - l4
        let source = frame[(sourceAt + shift)...].prefix(addressBytes), destination = frame[(destinationAt + shift)...].prefix(addressBytes)
        return Reference.fold(Reference.sum(source) + Reference.sum(destination) + proto + length & 0xffff + length >> 16)
    }

    /// The named checksum of `frame`, and then the enclosing one, as they have to be.
    func finish(_ frame: inout [UInt8], shift: Int = 0) {
        let l4 = l4 + shift, end = end + shift, field = field + shift
        if transport == .sctp {
            frame.replaceSubrange(field..<field + 4, with: [0, 0, 0, 0])
            frame.replaceSubrange(field..<field + 4, with: Self.crc32c(frame[l4..<end]))
        } else {
            Reference.put(&frame, field, 0)
            let value = ~Reference.fold(seed(frame, shift: shift) + Reference.sum(frame[l4..<end])) & 0xffff
            Reference.put(&frame, field, value == 0 && transport == .udp ? 0xffff : value)
        }
        if let enclosing { Self.finishUDP(&frame, ip: enclosing.ip + shift, udp: enclosing.udp + shift) }
    }

    static func finishUDP(_ frame: inout [UInt8], ip: Int, udp: Int) {
        let length = Reference.word(frame, udp + 4)
        Reference.put(&frame, udp + 6, 0)
        let value = ~Reference.fold(Reference.sum(frame[ip + 12..<ip + 20]) + 17 + length + Reference.sum(frame[udp..<udp + length])) & 0xffff
        Reference.put(&frame, udp + 6, value == 0 ? 0xffff : value)
    }

    /// As a sender with checksum offload leaves it: the enclosing checksum is already the final one.
    var unfinished: [UInt8] {
        var frame = finished
        Reference.put(&frame, field, seed(frame))
        return frame
    }

    /// RFC 9260 appendix A, bit by bit, in the order of the wire.
    static func crc32c(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        var crc: UInt32 = 0xffff_ffff
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82f6_3b78 : crc >> 1 }
        }
        crc = ~crc
        return [UInt8(crc & 0xff), UInt8(crc >> 8 & 0xff), UInt8(crc >> 16 & 0xff), UInt8(crc >> 24)]
    }
}
