import Testing
@testable import Wire

/// The parser as a table: frame in, places out. Half of it is malformed.
struct HeadersTests {
    static let ethernet: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]
    static let ipv4Type: [UInt8] = [0x08, 0x00]
    static let ipv6Type: [UInt8] = [0x86, 0xdd]
    static let tag: [UInt8] = [0x81, 0x00, 0, 10]
    static let serviceTag: [UInt8] = [0x88, 0xa8, 0, 20]

    static func ipv4(_ proto: UInt8, total: Int, options: [UInt8] = [], fragment: UInt16 = 0, version: UInt8 = 4,
                     words: Int? = nil) -> [UInt8] {
        [version << 4 | UInt8(words ?? 5 + options.count / 4), 0, UInt8(total >> 8), UInt8(total & 0xff), 0, 1,
         UInt8(fragment >> 8), UInt8(fragment & 0xff), 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2] + options
    }

    static func ipv6(_ next: UInt8, payload: Int) -> [UInt8] {
        [0x60, 0, 0, 0, UInt8(payload >> 8), UInt8(payload & 0xff), next, 64] + [UInt8](repeating: 0xfd, count: 32)
    }

    static func tcp(words: UInt8 = 5, payload: Int = 0) -> [UInt8] {
        [0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, words << 4, 0x10, 1, 0, 0, 0, 0, 0]
            + [UInt8](repeating: 1, count: max(0, Int(words) * 4 - 20) + payload)
    }

    static func udp(length: Int, payload: Int) -> [UInt8] {
        [0, 80, 0, 81, UInt8(length >> 8), UInt8(length & 0xff), 0, 0] + [UInt8](repeating: 1, count: payload)
    }

    static let sctp: [UInt8] = [0, 80, 0, 81, 1, 2, 3, 4, 0, 0, 0, 0, 0, 3, 0, 4]

    static func optionHeaders(_ count: Int) -> [UInt8] { (0..<count * 8).map { $0 % 8 == 2 ? 1 : $0 % 8 == 3 ? 4 : 0 } }

    static func segments(_ count: Int) -> [UInt8] { (0..<count * 16).map { UInt8($0 &* 3 &+ 0x20) } }

    /// TCP behind extension headers, which end with its number, with four bytes of padding behind.
    static func extended(_ name: String, _ first: UInt8, _ headers: [UInt8], destination: Int? = nil, isKnown: Bool = true) -> Case {
        Case(name: "ipv6: \(name)", frame: ethernet + ipv6Type + ipv6(first, payload: headers.count + 21) + headers + tcp(payload: 1) + [0, 0, 0, 0],
             expected: (14, 54 + headers.count, .tcp, 21, 4), isKnown: isKnown, destination: destination)
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let frame: [UInt8]
        var isSuperframe = false
        var available: Int?
        /// nil: malformed.
        let expected: (l3: Int, l4: Int, transport: Headers.Transport, length: Int, trailing: Int)?
        var isKnown = true
        /// Where the pseudo-header's destination stands; nil: in the IPv6 header.
        var destination: Int?
        var testDescription: String { name }
    }

    static let good: [Case] = [
        Case(name: "tcp", frame: ethernet + ipv4Type + ipv4(6, total: 44) + tcp(payload: 4), expected: (14, 34, .tcp, 24, 0)),
        Case(name: "tcp padded", frame: ethernet + ipv4Type + ipv4(6, total: 40) + tcp() + [0, 0, 0, 0, 0, 0], expected: (14, 34, .tcp, 20, 6)),
        Case(name: "tcp vlan", frame: ethernet + tag + ipv4Type + ipv4(6, total: 40) + tcp(), expected: (18, 38, .tcp, 20, 0)),
        Case(name: "tcp qinq", frame: ethernet + serviceTag + tag + ipv4Type + ipv4(6, total: 40) + tcp(), expected: (22, 42, .tcp, 20, 0)),
        Case(name: "tcp options", frame: ethernet + ipv4Type + ipv4(6, total: 48, options: [1, 1, 1, 0]) + tcp(words: 6), expected: (14, 38, .tcp, 24, 0)),
        Case(name: "source route", frame: ethernet + ipv4Type + ipv4(6, total: 44, options: [131, 3, 4, 0]) + tcp(), expected: (14, 38, .tcp, 20, 0), isKnown: false),
        Case(name: "strict route behind nop", frame: ethernet + ipv4Type + ipv4(6, total: 44, options: [1, 137, 3, 4]) + tcp(), expected: (14, 38, .tcp, 20, 0), isKnown: false),
        Case(name: "option of length 0", frame: ethernet + ipv4Type + ipv4(6, total: 44, options: [7, 0, 0, 0]) + tcp(), expected: (14, 38, .tcp, 20, 0), isKnown: false),
        Case(name: "first fragment", frame: ethernet + ipv4Type + ipv4(6, total: 40, fragment: 0x2000) + tcp(), expected: (14, 0, .other, 0, 0), isKnown: false),
        Case(name: "later fragment", frame: ethernet + ipv4Type + ipv4(6, total: 40, fragment: 0x0010) + tcp(), expected: (14, 0, .other, 0, 0), isKnown: false),
        Case(name: "do not fragment is none", frame: ethernet + ipv4Type + ipv4(6, total: 40, fragment: 0x4000) + tcp(), expected: (14, 34, .tcp, 20, 0)),
        Case(name: "udp", frame: ethernet + ipv4Type + ipv4(17, total: 31) + udp(length: 11, payload: 3), expected: (14, 34, .udp, 11, 0)),
        Case(name: "udp shorter than ip", frame: ethernet + ipv4Type + ipv4(17, total: 31) + udp(length: 9, payload: 3), expected: (14, 34, .udp, 9, 2)),
        Case(name: "icmp", frame: ethernet + ipv4Type + ipv4(1, total: 28) + udp(length: 0, payload: 0), expected: (14, 34, .icmp, 8, 0), isKnown: false),
        Case(name: "sctp", frame: ethernet + ipv4Type + ipv4(132, total: 36) + sctp, expected: (14, 34, .sctp, 16, 0), isKnown: false),
        Case(name: "gre", frame: ethernet + ipv4Type + ipv4(47, total: 40) + tcp(), expected: (14, 0, .other, 0, 0), isKnown: false),
        Case(name: "tcp over ipv6", frame: ethernet + ipv6Type + ipv6(6, payload: 20) + tcp(), expected: (14, 54, .tcp, 20, 0)),
        Case(name: "udp over ipv6", frame: ethernet + ipv6Type + ipv6(17, payload: 8) + udp(length: 8, payload: 0), expected: (14, 54, .udp, 8, 0)),
        Case(name: "ipv6 fragment", frame: ethernet + ipv6Type + ipv6(44, payload: 20) + tcp(), expected: (14, 0, .other, 0, 0), isKnown: false),
        Case(name: "icmp6", frame: ethernet + ipv6Type + ipv6(58, payload: 8) + udp(length: 0, payload: 0), expected: (14, 54, .icmp6, 8, 0), isKnown: false),
        Case(name: "sctp over ipv6", frame: ethernet + ipv6Type + ipv6(132, payload: 16) + sctp, expected: (14, 54, .sctp, 16, 0), isKnown: false),
        Case(name: "icmp6 over ipv4 is nothing", frame: ethernet + ipv4Type + ipv4(58, total: 28) + udp(length: 0, payload: 0), expected: (14, 0, .other, 0, 0), isKnown: false),
        extended("hop by hop", 0, [6, 0, 1, 4, 0, 0, 0, 0]),
        extended("destination options", 60, [6, 0, 1, 4, 0, 0, 0, 0]),
        extended("hop by hop, destination options", 0, [60, 0, 1, 4, 0, 0, 0, 0, 6, 1, 0, 0, 0, 0, 1, 8] + [UInt8](repeating: 0, count: 8)),
        extended("home address", 60, [6, 2, 201, 16] + [UInt8](repeating: 7, count: 16) + [1, 2, 0, 0], isKnown: false),
        extended("an option past its header", 60, [6, 0, 1, 5, 0, 0, 0, 0], isKnown: false),
        extended("routing of type 0", 43, [6, 4, 0, 2, 0, 0, 0, 0] + segments(2), destination: 14 + 40 + 8 + 16),
        extended("routing of type 0, all visited", 43, [6, 4, 0, 0, 0, 0, 0, 0] + segments(2), destination: 38),
        extended("routing of type 0, too many left", 43, [6, 4, 0, 3, 0, 0, 0, 0] + segments(2), isKnown: false),
        extended("routing of type 2", 43, [6, 2, 2, 1, 0, 0, 0, 0] + segments(1), destination: 62),
        extended("segment routing", 43, [6, 4, 4, 1, 1, 0, 0, 0] + segments(2), destination: 62),
        extended("segment routing, all visited", 43, [6, 4, 4, 0, 1, 0, 0, 0] + segments(2), destination: 38),
        extended("segment routing, as many left as there are", 43, [6, 4, 4, 2, 1, 0, 0, 0] + segments(2), isKnown: false),
        extended("routing without addresses", 43, [6, 0, 0, 1, 0, 0, 0, 0], isKnown: false),
        extended("routing of unknown type", 43, [6, 4, 3, 1, 0, 0, 0, 0] + segments(2), isKnown: false),
        extended("authentication", 51, [6, 4] + [UInt8](repeating: 3, count: 22), isKnown: false),
        extended("seven headers", 0, optionHeaders(6) + [6, 0, 1, 4, 0, 0, 0, 0]),
        Case(name: "nine headers", frame: ethernet + ipv6Type + ipv6(0, payload: 92) + optionHeaders(8) + [6, 0, 1, 4, 0, 0, 0, 0] + tcp(), expected: (14, 0, .other, 0, 0), isKnown: false),
        Case(name: "a fragment behind hop by hop", frame: ethernet + ipv6Type + ipv6(0, payload: 36) + [44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9] + tcp(), expected: (14, 0, .other, 0, 0), isKnown: false),
        Case(name: "superframe without a length", frame: ethernet + ipv4Type + ipv4(6, total: 0) + tcp(payload: 3000), isSuperframe: true, expected: (14, 34, .tcp, 3020, 0)),
        Case(name: "superframe of ipv6 without a length", frame: ethernet + ipv6Type + ipv6(6, payload: 0) + tcp(payload: 3000), isSuperframe: true, expected: (14, 54, .tcp, 3020, 0)),
    ]

    static let malformed: [Case] = [
        Case(name: "ip version", frame: ethernet + ipv4Type + ipv4(6, total: 40, version: 5) + tcp(), expected: nil),
        Case(name: "ip header of 4 words", frame: ethernet + ipv4Type + ipv4(6, total: 40, words: 4) + tcp(), expected: nil),
        Case(name: "ip header past the frame", frame: ethernet + ipv4Type + ipv4(6, total: 40, words: 15), expected: nil),
        Case(name: "ip header cut", frame: ethernet + ipv4Type + Array(ipv4(6, total: 40).prefix(19)), expected: nil),
        Case(name: "total below header", frame: ethernet + ipv4Type + ipv4(6, total: 19) + tcp(), expected: nil),
        Case(name: "total past the frame", frame: ethernet + ipv4Type + ipv4(6, total: 41) + tcp(), expected: nil),
        Case(name: "length 0 in no superframe", frame: ethernet + ipv4Type + ipv4(6, total: 0) + tcp(), expected: nil),
        Case(name: "tcp cut", frame: ethernet + ipv4Type + ipv4(6, total: 39) + Array(tcp().prefix(19)), expected: nil),
        Case(name: "tcp offset 4", frame: ethernet + ipv4Type + ipv4(6, total: 40) + tcp(words: 4), expected: nil),
        Case(name: "tcp offset past the packet", frame: ethernet + ipv4Type + ipv4(6, total: 40) + Array(tcp(words: 15).prefix(20)), expected: nil),
        Case(name: "tcp header beyond the first segment", frame: ethernet + ipv4Type + ipv4(6, total: 44) + tcp(payload: 4), available: 53, expected: nil),
        Case(name: "udp cut", frame: ethernet + ipv4Type + ipv4(17, total: 27) + Array(udp(length: 8, payload: 0).prefix(7)), expected: nil),
        Case(name: "udp length 7", frame: ethernet + ipv4Type + ipv4(17, total: 28) + udp(length: 7, payload: 0), expected: nil),
        Case(name: "udp length past ip", frame: ethernet + ipv4Type + ipv4(17, total: 28) + udp(length: 9, payload: 0), expected: nil),
        Case(name: "ipv6 cut", frame: ethernet + ipv6Type + Array(ipv6(6, payload: 0).prefix(39)), expected: nil),
        Case(name: "ipv6 version", frame: ethernet + ipv6Type + [0x40] + Array(ipv6(6, payload: 20).dropFirst()) + tcp(), expected: nil),
        Case(name: "ipv6 payload past the frame", frame: ethernet + ipv6Type + ipv6(6, payload: 21) + tcp(), expected: nil),
        Case(name: "extension header cut", frame: ethernet + ipv6Type + ipv6(0, payload: 7) + [6, 0, 1, 4, 0, 0, 0], expected: nil),
        Case(name: "extension header past the packet", frame: ethernet + ipv6Type + ipv6(60, payload: 28) + [6, 3, 1, 4, 0, 0, 0, 0] + tcp(), expected: nil),
        Case(name: "extension header behind the last", frame: ethernet + ipv6Type + ipv6(0, payload: 8) + [60, 0, 1, 4, 0, 0, 0, 0], expected: nil),
        Case(name: "authentication past the packet", frame: ethernet + ipv6Type + ipv6(51, payload: 12) + [6, 4] + [UInt8](repeating: 0, count: 10), expected: nil),
        Case(name: "sctp cut", frame: ethernet + ipv4Type + ipv4(132, total: 31) + sctp.prefix(11), expected: nil),
        Case(name: "icmp6 cut", frame: ethernet + ipv6Type + ipv6(58, payload: 3) + [1, 2, 3], expected: nil),
        Case(name: "ipv6 tcp cut", frame: ethernet + ipv6Type + ipv6(6, payload: 10) + Array(tcp().prefix(10)), expected: nil),
    ]

    private func parse(_ test: Case) -> Headers {
        unsafe test.frame.withUnsafeBytes {
            unsafe Headers.parse($0.baseAddress!, available: test.available ?? test.frame.count, length: test.frame.count,
                                 isSuperframe: test.isSuperframe)
        }
    }

    @Test(arguments: good)
    func places(_ test: Case) throws {
        let found = parse(test)
        let expected = try #require(test.expected)
        #expect(!found.isMalformed)
        #expect(found.l3 == expected.l3)
        #expect(found.l4 == expected.l4)
        #expect(found.transport == expected.transport)
        #expect(found.transportLength == expected.length)
        if expected.transport != .other { #expect(found.trailingBytes == expected.trailing) }
        #expect(found.hasKnownChecksum == test.isKnown)
        if found.network == .ipv6, found.hasKnownChecksum { #expect(found.destination == test.destination ?? 38) }
        #expect(found.hasExtensions == (found.network == .ipv6 && found.l4 > found.l3 + 40))
    }

    @Test(arguments: malformed)
    func isMalformed(_ test: Case) {
        let found = parse(test)
        #expect(found.isMalformed)
        #expect(!found.hasKnownChecksum)
        #expect(found.transport == .other)
    }

    @Test func notIP() {
        for frame in [Self.ethernet + [0x08, 0x06] + Self.tcp(), Self.ethernet, Self.ethernet + Self.tag + Self.tag + Self.tag + Self.ipv4Type] {
            let found = parse(Case(name: "", frame: frame, expected: nil))
            #expect(found.network == .other && !found.isMalformed && !found.hasKnownChecksum)
        }
    }

    /// Whatever the bytes, nothing outside them is read (the buffer ends at an unmapped page's edge in spirit:
    /// every prefix is parsed as its own exact allocation) and nothing is found beyond them.
    @Test func everyTruncation() {
        for test in Self.good where !test.isSuperframe {
            for length in 0..<test.frame.count {
                let cut = Case(name: test.name, frame: Array(test.frame.prefix(length)), expected: nil)
                let found = parse(cut)
                #expect(found.l4 + found.transportLength <= length)
                if found.transport != .other { #expect(found.payload <= length) }
            }
        }
    }

    /// The seeds of contract section 2, summed here byte by byte: addresses, the transport's own number and length,
    /// whatever extension headers stand in between.
    @Test(arguments: good) func seed(_ test: Case) {
        let found = parse(test)
        guard found.hasCertainChecksum else { return }
        var expected: UInt16 = 0
        let proto: UInt16? = switch found.transport { case .tcp: 6; case .udp: 17; case .icmp6: 58; default: nil }
        if let proto {
            var addresses = Array(test.frame[found.l3 + 12..<found.l3 + 20])
            if found.network == .ipv6 {
                let destination = test.destination ?? found.l3 + 24
                addresses = Array(test.frame[found.l3 + 8..<found.l3 + 24]) + Array(test.frame[destination..<destination + 16])
            }
            expected = SlowTwin.add(SlowTwin.add(SlowTwin.sum(addresses), proto), UInt16(found.transportLength))
        }
        unsafe test.frame.withUnsafeBytes {
            unsafe #expect(found.pseudoHeaderSum($0.baseAddress!).folded.bigEndian == expected)
        }
    }
}
