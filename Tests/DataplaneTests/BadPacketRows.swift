import CDPDK
import Wire
@testable import DPDK

/// The rows of ``BadPackets``. What is expected follows from how a frame was built, not from parsing it.
extension BadPackets {
    static let rows = truncated + lying + places + superframes + short + chains

    private static let partial = apus_flag_rx_l4_partial, merged = apus_flag_rx_l4_partial | apus_flag_rx_lro

    private static func seeded(_ kind: Reference.Kind, payload: Int = 50, tags: Int = 0) -> [UInt8] {
        var frame = Reference.frame(kind, payload: payload, tags: tags)
        Reference.unfinish(&frame)
        return frame
    }

    /// All five claims about a frame whose headers are not what they say, or are not all there: nothing is believed, and
    /// what may be carried literally is.
    private static func disbelieved(_ name: String, _ frame: [UInt8], start: Int, offset: Int) -> [Row] {
        let isPlaceInside = start + offset + 2 <= frame.count
        return [
            Row(name: "\(name), nothing said", frame: frame, claim: .nothing, answer: .carried(.none)),
            Row(name: "\(name), said to be verified", frame: frame, claim: .verified, answer: .carried(.none)),
            Row(name: "\(name), unfinished", frame: frame, claim: .unfinished(start, offset),
                answer: isPlaceInside ? .carried(.opaque(start: UInt16(start), offset: UInt16(offset))) : .dropped(.badChecksumPlace)),
            Row(name: "\(name), a superframe", frame: frame, claim: .superframe(1, 20, start, offset),
                answer: .dropped(isPlaceInside ? .badSuperframe : .badChecksumPlace)),
            Row(name: "\(name), unfinished for vhost", frame: frame, claim: .flags(partial, segment: 0), answer: .dropped(.badChecksumPlace)),
            Row(name: "\(name), a superframe for vhost", frame: frame, claim: .flags(merged, segment: 20), answer: .dropped(.badSuperframe)),
            Row(name: "\(name), good for vhost", frame: frame, claim: .flags(apus_flag_rx_l4_good, segment: 0), answer: .carried(.none)),
        ]
    }

    /// Cut anywhere: the IP header's length then says more than there is.
    private static let truncated: [Row] = Reference.Kind.allCases.flatMap { kind -> [Row] in
        [0, 1, 2].flatMap { tags -> [Row] in
            let frame = seeded(kind, tags: tags), place = Reference.transport(frame, at: Reference.l3(frame))
            return (14..<frame.count).flatMap { length in
                disbelieved("truncated", Array(frame.prefix(length)), start: place.l4, offset: place.proto == 17 ? 6 : 16)
            }
        }
    }

    /// Header fields that contradict the frame or each other.
    private static let lying: [Row] = {
        func changed(_ kind: Reference.Kind, _ changes: (at: Int, value: UInt8)...) -> [UInt8] {
            var frame = seeded(kind)
            for change in changes { frame[change.at] = change.value }
            return frame
        }
        let tcp: [(String, [UInt8])] = [
            ("total length below the header", changed(.tcp4, (16, 0), (17, 19))),
            ("total length of the header alone", changed(.tcp4, (16, 0), (17, 20))), ("total length past the frame", changed(.tcp4, (17, 91))),
            ("total length of 65535", changed(.tcp4, (16, 0xff), (17, 0xff))), ("total length inside TCP's header", changed(.tcp4, (17, 39))),
            ("header length of 0", changed(.tcp4, (14, 0x40))), ("header length of 16", changed(.tcp4, (14, 0x44))),
            ("version 5", changed(.tcp4, (14, 0x55))), ("version 6 in an IPv4 frame", changed(.tcp4, (14, 0x65))),
            ("data offset of 0", changed(.tcp4, (46, 0))), ("data offset of 16", changed(.tcp4, (46, 0x40))),
            ("data offset past the packet", { var frame = seeded(.tcp4, payload: 20); frame[46] = 0xf0; return frame }()),
        ]
        let udp: [(String, [UInt8])] = [
            ("UDP length of 0", changed(.udp4, (38, 0), (39, 0))), ("UDP length of 7", changed(.udp4, (38, 0), (39, 7))),
            ("UDP length past IP's", changed(.udp4, (39, 59))), ("UDP length of 65535", changed(.udp4, (38, 0xff), (39, 0xff))),
        ]
        let six: [(String, [UInt8])] = [
            ("payload length past the frame", changed(.tcp6, (19, 71))), ("payload length of 65535", changed(.tcp6, (18, 0xff), (19, 0xff))),
            ("payload length inside TCP's header", changed(.tcp6, (18, 0), (19, 19))), ("version 4 in an IPv6 frame", changed(.tcp6, (14, 0x40))),
            ("hop-by-hop past the packet", changed(.tcp6, (20, 0), (55, 0xff))), ("routing past the packet", changed(.tcp6, (20, 43), (55, 40))),
        ]
        return tcp.flatMap { disbelieved($0.0, $0.1, start: 34, offset: 16) } + udp.flatMap { disbelieved($0.0, $0.1, start: 34, offset: 6) }
            + six.flatMap { disbelieved($0.0, $0.1, start: 54, offset: 16) } + endless
    }()

    /// Nine extension headers, one more than the parser follows: no lie, but carried, not understood.
    private static let endless: [Row] = {
        var frame = Array(Reference.frame(.udp6, payload: 0).prefix(54))
        frame[20] = 60
        frame.replaceSubrange(18..<20, with: [0, 80])
        for number in 0..<9 { frame += [number == 8 ? 17 : 60, 0, 1, 4, 0, 0, 0, 0] }
        frame += [0x1f, 0x90, 0xc0, 1, 0, 8, 0, 0]
        return disbelieved("nine extension headers", frame, start: 126, offset: 6)
    }()

    /// csum_start and csum_offset, wherever they point.
    private static let places: [Row] = {
        let frame = seeded(.tcp4), end = frame.count
        var rows: [Row] = []
        for (start, offset) in [(0, 0), (1, 1), (12, 0), (33, 16), (35, 15), (34, 15), (34, 17), (end - 2, 0), (end - 3, 1), (0, end - 2)] {
            rows.append(Row(name: "a place of its own", frame: frame, claim: .unfinished(start, offset),
                            answer: .carried(.opaque(start: UInt16(start), offset: UInt16(offset)))))
        }
        for (start, offset) in [(end - 1, 0), (end, 0), (end - 2, 1), (0, end - 1), (65_535, 0), (0, 65_535), (65_535, 65_535), (34, 65_535), (65_535, 16)] {
            rows.append(Row(name: "a place past the end", frame: frame, claim: .unfinished(start, offset), answer: .dropped(.badChecksumPlace)))
            rows.append(Row(name: "a place past the end, superframe", frame: frame, claim: .superframe(1, 20, start, offset),
                            answer: .dropped(.badChecksumPlace)))
        }
        return rows
    }()

    /// GSO sizes and types.
    private static let superframes: [Row] = {
        // Linux's BIG TCP: "to the end of the frame".
        var endless = seeded(.tcp4, payload: 5000)
        endless.replaceSubrange(16..<18, with: [0, 0])
        let known = ChecksumState.known(start: 34, offset: 16), large = seeded(.tcp4, payload: 5000), udp = seeded(.udp4, payload: 5000)
        func row(_ name: String, _ frame: [UInt8], _ claim: Claim, _ answer: Answer) -> Row { Row(name: name, frame: frame, claim: claim, answer: answer) }
        var rows = [
            row("total length of 0", endless, .superframe(1, 1448, 34, 16), .carried(known.superframe(.tcp4, segmentSize: 1448, congestion: false))),
            row("total length of 0, no superframe", endless, .unfinished(34, 16), .carried(.opaque(start: 34, offset: 16))),
            row("total length of 0, no superframe for vhost", endless, .flags(partial, segment: 0), .dropped(.badChecksumPlace)),
            row("size 0", large, .superframe(1, 0, 34, 16), .dropped(.badSuperframe)),
            row("size 1", large, .superframe(1, 1, 34, 16), .dropped(.badSuperframe)),
            row("size 3", large, .superframe(1, 3, 34, 16), .dropped(.badSuperframe)),
            row("size 4", large, .superframe(1, 4, 34, 16), .carried(known.superframe(.tcp4, segmentSize: 4, congestion: false))),
            row("size of 65535", large, .superframe(1, 65_535, 34, 16), .carried(known)),
            row("size for vhost, 0", large, .flags(merged, segment: 0), .dropped(.badSuperframe)),
            row("size for vhost, 1", large, .flags(merged, segment: 1), .dropped(.badSuperframe)),
            row("size for vhost, 65535", large, .flags(merged, segment: 65_535), .carried(known)),
            row("no partial checksum", large, .virtio(flags: 0, gso: 1, size: 1448, start: 0, offset: 0), .dropped(.badSuperframe)),
            row("no partial checksum, said to be verified", large, .virtio(flags: 2, gso: 1, size: 1448, start: 0, offset: 0), .dropped(.badSuperframe)),
            row("no partial checksum for vhost", large, .flags(apus_flag_rx_lro, segment: 1448), .dropped(.badSuperframe)),
            row("no seed in the field", Reference.frame(.tcp4, payload: 5000), .superframe(1, 1448, 34, 16), .dropped(.badSuperframe)),
            row("a place of its own for a superframe", large, .superframe(1, 1448, 35, 16), .dropped(.badSuperframe)),
            row("TCP as fragments", large, .superframe(3, 1448, 34, 16), .dropped(.badSuperframe)),
            row("TCP as datagrams", large, .superframe(5, 1448, 34, 16), .dropped(.badSuperframe)),
            row("UDP as TCP", udp, .superframe(1, 1448, 34, 6), .dropped(.badSuperframe)),
            row("fragments of no multiple of 8", udp, .superframe(3, 1447, 34, 6), .dropped(.badSuperframe)),
            row("datagrams of 3 bytes", udp, .superframe(5, 3, 34, 6), .dropped(.badSuperframe)),
            row("no payload", seeded(.tcp4, payload: 0), .superframe(1, 1448, 34, 16), .carried(known)),
        ]
        for type in [2, 6, 0x40, 0x7f] { rows.append(row("unknown type", large, .superframe(type, 1448, 34, 16), .dropped(.badSuperframe))) }
        // Congestion alone is no superframe.
        rows.append(row("congestion alone", seeded(.tcp4), .superframe(0x80, 1448, 34, 16), .carried(known)))
        return rows
    }()

    /// Less than an Ethernet header.
    private static let short: [Row] = (0..<14).map {
        Row(name: "\($0) bytes", frame: [UInt8](repeating: 8, count: $0), claim: .flags(apus_flag_rx_l4_unknown, segment: 0), answer: .dropped(.tooShort))
    }

    /// Segments of a byte each, from the first on and from behind the headers; empty ones between.
    private static let chains: [Row] = {
        let unknown = Claim.flags(apus_flag_rx_l4_unknown, segment: 0)
        let frame = seeded(.tcp4), large = seeded(.tcp4, payload: 3000), known = ChecksumState.known(start: 34, offset: 16)
        var rows = [
            Row(name: "segments of a byte", frame: frame, splits: Array(1..<frame.count), claim: unknown, answer: .dropped(.tooShort)),
            Row(name: "segments of a byte behind Ethernet", frame: frame, splits: Array(14..<frame.count), claim: unknown, answer: .carried(.none)),
            Row(name: "segments of a byte behind Ethernet, unfinished", frame: frame, splits: Array(14..<frame.count),
                claim: .flags(partial, segment: 0), answer: .dropped(.badChecksumPlace)),
            Row(name: "segments of a byte behind the headers", frame: frame, splits: Array(54..<frame.count), claim: .flags(partial, segment: 0),
                answer: .carried(known)),
            Row(name: "segments of a byte of a superframe", frame: large, splits: Array(54..<255), claim: .flags(merged, segment: 1448),
                answer: .carried(known.superframe(.tcp4, segmentSize: 1448, congestion: false))),
            Row(name: "empty segments", frame: frame, splits: [54, 54, 60, 60, 60], claim: .flags(partial, segment: 0), answer: .carried(known)),
        ]
        for at in 14..<54 {
            rows.append(Row(name: "headers in two segments", frame: frame, splits: [at], claim: unknown, answer: .carried(.none)))
            rows.append(Row(name: "headers in two segments, unfinished", frame: frame, splits: [at], claim: .flags(partial, segment: 0),
                            answer: .dropped(.badChecksumPlace)))
        }
        return rows
    }()
}
