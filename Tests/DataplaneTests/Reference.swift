/// Checksums and headers byte by byte, from the RFCs: expected bytes come from here, and nothing here comes
/// from Wire or Dataplane. A frame is Ethernet, VLAN tags, one or two IP headers, TCP or UDP.
enum Reference {
    static func fold(_ value: Int) -> Int {
        var value = value
        while value > 0xffff { value = value & 0xffff + value >> 16 }
        return value
    }

    static func sum(_ bytes: some Sequence<UInt8>) -> Int {
        var total = 0
        for (index, byte) in bytes.enumerated() { total += index % 2 == 0 ? Int(byte) << 8 : Int(byte) }
        return fold(total)
    }

    static func word(_ frame: [UInt8], _ at: Int) -> Int { Int(frame[at]) << 8 | Int(frame[at + 1]) }
    static func put(_ frame: inout [UInt8], _ at: Int, _ value: Int) {
        frame[at] = UInt8(value >> 8 & 0xff)
        frame[at + 1] = UInt8(value & 0xff)
    }

    /// Bytes in front of the outermost IP header.
    static func l3(_ frame: [UInt8]) -> Int {
        var at = 12
        while [0x8100, 0x88a8].contains(word(frame, at)) { at += 4 }
        return at + 2
    }

    struct Place: Equatable { var l4: Int, length: Int, proto: Int, pseudo: Int }

    /// TCP or UDP of the IP header at `at`. A superframe's zero length reaches to the end.
    static func transport(_ frame: [UInt8], at: Int) -> Place {
        let isIPv6 = frame[at] >> 4 == 6
        let proto = Int(frame[isIPv6 ? at + 6 : at + 9])
        let l4 = at + (isIPv6 ? 40 : Int(frame[at] & 15) * 4)
        let stated = isIPv6 ? word(frame, at + 4) : word(frame, at + 2)
        let end = stated == 0 ? frame.count : at + stated + (isIPv6 ? 40 : 0)
        let length = proto == 17 ? word(frame, l4 + 4) : end - l4
        let addresses = isIPv6 ? frame[at + 8..<at + 40] : frame[at + 12..<at + 20]
        return Place(l4: l4, length: length, proto: proto, pseudo: fold(sum(addresses) + proto + length & 0xffff + length >> 16))
    }

    /// The field of a finished packet.
    static func checksum(_ frame: [UInt8], at l3: Int) -> Int {
        let place = transport(frame, at: l3)
        var bytes = Array(frame[place.l4..<place.l4 + place.length])
        put(&bytes, place.proto == 17 ? 6 : 16, 0)
        let value = ~fold(place.pseudo + sum(bytes)) & 0xffff
        return value == 0 && place.proto == 17 ? 0xffff : value
    }

    static func field(_ frame: [UInt8], at l3: Int) -> Int {
        let place = transport(frame, at: l3)
        return place.l4 + (place.proto == 17 ? 6 : 16)
    }

    static func isRight(_ frame: [UInt8], at l3: Int) -> Bool {
        let place = transport(frame, at: l3)
        return [0, 0xffff].contains(fold(place.pseudo + sum(frame[place.l4..<place.l4 + place.length])))
    }

    static func isIPv4HeaderRight(_ frame: [UInt8], at l3: Int) -> Bool {
        [0, 0xffff].contains(sum(frame[l3..<l3 + Int(frame[l3] & 15) * 4]))
    }

    /// What a virtio receiver does with csum_start and csum_offset (virtio 1.2, 5.1.6.4.1).
    static func completed(_ frame: [UInt8], start: Int, offset: Int) -> [UInt8] {
        var frame = frame
        let value = ~sum(frame[start...]) & 0xffff
        put(&frame, start + offset, value == 0 ? 0xffff : value)
        return frame
    }

    // MARK: Building

    enum Kind: CaseIterable, Sendable { case tcp4, udp4, tcp6, udp6 }

    /// A finished frame with right checksums everywhere.
    static func frame(_ kind: Kind, payload: Int, tags: Int = 0, options: Int = 0, padding: Int = 0) -> [UInt8] {
        var frame: [UInt8] = [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa]
        for tag in 0..<tags { frame += [tag == 0 && tags == 2 ? 0x88 : 0x81, tag == 0 && tags == 2 ? 0xa8 : 0, 0, UInt8(10 + tag)] }
        let isTCP = kind == .tcp4 || kind == .tcp6
        let body = (isTCP ? tcp : udp) + (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 11) }
        let l3 = frame.count + 2
        if kind == .tcp4 || kind == .udp4 {
            frame += [8, 0, UInt8(0x45 + options), 0] + bytes16((20 + options * 4 + body.count) & 0xffff)
                + [0x12, 0x34, 0x40, 0, 64, isTCP ? 6 : 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2] + [UInt8](repeating: 1, count: options * 4)
        } else {
            frame += [0x86, 0xdd, 0x60, 0, 0, 0] + bytes16(body.count & 0xffff) + [isTCP ? 6 : 17, 64]
                + (0..<32).map { UInt8($0 * 5 + 3) }
        }
        frame += body
        if !isTCP { put(&frame, frame.count - body.count + 4, body.count) }
        finish(&frame, l3)
        return frame + [UInt8](repeating: 0xee, count: padding)
    }

    /// Fills in the IPv4 header checksum and the transport checksum.
    static func finish(_ frame: inout [UInt8], _ l3: Int) {
        if frame[l3] >> 4 == 4 {
            put(&frame, l3 + 10, 0)
            put(&frame, l3 + 10, ~sum(frame[l3..<l3 + Int(frame[l3] & 15) * 4]) & 0xffff)
        }
        put(&frame, field(frame, at: l3), checksum(frame, at: l3))
    }

    /// Leaves the pseudo-header sum in the field, as a sender with checksum offload does.
    static func unfinish(_ frame: inout [UInt8]) {
        let place = transport(frame, at: l3(frame))
        put(&frame, field(frame, at: l3(frame)), place.pseudo)
    }

    private static let tcp: [UInt8] = [0x1f, 0x90, 0xc0, 0x01, 0, 0, 0x10, 0, 0, 0, 0x20, 0, 0x50, 0x98, 1, 0, 0, 0, 0, 0]
    private static let udp: [UInt8] = [0x1f, 0x90, 0xc0, 0x01, 0, 0, 0, 0]
    static func bytes16(_ value: Int) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }
}
