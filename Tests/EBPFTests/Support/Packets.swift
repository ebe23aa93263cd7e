/// Numbers that look random and are the same in every run.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

/// Frames written out by hand, with checksums by the slowest code there is.
struct Frame {
    var vlans: [UInt16] = []
    var source: [UInt8] = [10, 0, 0, 1]
    var destination: [UInt8] = [10, 0, 0, 100]
    var sourcePort: UInt16 = 40000
    var destinationPort: UInt16 = 8080
    var isUDP = false
    var isIPv6 = false
    var options = 0             // bytes of IPv4 options, multiple of 4
    var fragment: UInt16 = 0
    var payload: [UInt8] = []
    var udpChecksum = true

    static let macs: [UInt8] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]

    static func sum(_ bytes: [UInt8]) -> UInt32 {
        var total: UInt32 = 0
        for (i, byte) in bytes.enumerated() { total += i % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte) }
        while total > 0xffff { total = (total & 0xffff) + (total >> 16) }
        return total
    }

    static func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }

    var l3Offset: Int { 14 + 4 * vlans.count }
    var l4Offset: Int { l3Offset + (isIPv6 ? 40 : 20 + options) }

    var bytes: [UInt8] {
        let l4 = l4Bytes
        var frame = Frame.macs
        for vlan in vlans { frame += [0x81, 0x00] + Frame.big(vlan) }
        if isIPv6 {
            frame += [0x86, 0xdd, 0x60, 0, 0, 0] + Frame.big(UInt16(l4.count)) + [isUDP ? 17 : 6, 64] + wide(source) + wide(destination)
            return frame + l4
        }
        var ip: [UInt8] = [UInt8(0x45 + options / 4), 0] + Frame.big(UInt16(20 + options + l4.count)) + [0x12, 0x34]
            + Frame.big(fragment) + [64, isUDP ? 17 : 6, 0, 0] + source + destination + [UInt8](repeating: 1, count: options)
        let check = Frame.big(~UInt16(Frame.sum(ip)))
        ip[10] = check[0]
        ip[11] = check[1]
        return frame + [0x08, 0x00] + ip + l4
    }

    private func wide(_ address: [UInt8]) -> [UInt8] { [0xfd, 0] + [UInt8](repeating: 0, count: 10) + address }

    private var l4Bytes: [UInt8] {
        var l4 = Frame.big(sourcePort) + Frame.big(destinationPort)
        if isUDP {
            l4 += Frame.big(UInt16(8 + payload.count)) + [0, 0]
        } else {
            l4 += [0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]
        }
        l4 += payload
        if isUDP && !udpChecksum { return l4 }
        let addresses = isIPv6 ? wide(source) + wide(destination) : source + destination
        let pseudo = addresses + [0, isUDP ? 17 : 6] + Frame.big(UInt16(l4.count))
        var check = ~UInt16(Frame.sum(pseudo + l4))
        if isUDP && check == 0 { check = 0xffff }
        let at = isUDP ? 6 : 16
        l4.replaceSubrange(at..<(at + 2), with: Frame.big(check))
        return l4
    }

    /// Whether the IPv4 header and L4 checksums of a frame are right, from its bytes alone.
    static func isConsistent(_ frame: [UInt8], l3Offset: Int) -> (ip: Bool, l4: Bool) {
        let ip = Array(frame[l3Offset...])
        let header = Int(ip[0] & 15) * 4, total = Int(ip[2]) << 8 | Int(ip[3])
        let l4 = Array(ip[header..<total])
        let pseudo = Array(ip[12..<20]) + [0, ip[9]] + big(UInt16(l4.count))
        let isUnsummed = ip[9] == 17 && l4[6] == 0 && l4[7] == 0
        return (sum(Array(ip[0..<header])) == 0xffff, isUnsummed || sum(pseudo + l4) == 0xffff)
    }
}

/// Everything a port may bring: mostly well-formed, some of it cut, corrupted or noise.
struct Traffic {
    var random: SplitMix

    init(seed: UInt64) { random = SplitMix(seed) }

    mutating func next() -> [UInt8] {
        let kind = Int.random(in: 0..<16, using: &random)
        if kind == 0 {
            return (0..<Int.random(in: 14...200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
        }
        var packet = frame().bytes
        if kind <= 3 { packet = Array(packet.prefix(Int.random(in: 14...packet.count, using: &random))) }
        if kind == 4 { packet[Int.random(in: 0..<packet.count, using: &random)] ^= UInt8.random(in: 1...255, using: &random) }
        return packet
    }

    private mutating func frame() -> Frame {
        var frame = Frame()
        frame.isUDP = Bool.random(using: &random)
        frame.isIPv6 = Int.random(in: 0..<6, using: &random) == 0
        frame.vlans = (0..<[0, 0, 0, 1, 1, 2, 3].randomElement(using: &random)!).map { _ in UInt16.random(in: 0..<4096, using: &random) }
        frame.options = [0, 0, 0, 0, 4, 12, 40].randomElement(using: &random)!
        frame.fragment = [0, 0, 0, 0, 0, 0x4000, 0x2000, 0x0100].randomElement(using: &random)!
        frame.payload = (0..<Int.random(in: 0...700, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
        frame.udpChecksum = Int.random(in: 0..<4, using: &random) != 0
        let client: [UInt8] = [10, 0, 0, UInt8.random(in: 1...9, using: &random)]
        let clientPort = UInt16.random(in: 40000...40040, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0:     // a reply
            (frame.source, frame.destination) = ([10, 0, 0, 2], client)
            (frame.sourcePort, frame.destinationPort) = ([5201, 5202, 5203].randomElement(using: &random)!, clientPort)
        case 1:     // none of NAT's business
            (frame.source, frame.destination) = (client, [10, 0, 0, 3])
            (frame.sourcePort, frame.destinationPort) = (clientPort, 8080)
        default:
            (frame.source, frame.destination) = (client, [10, 0, 0, 100])
            (frame.sourcePort, frame.destinationPort) = (clientPort, [8080, 8081, 80].randomElement(using: &random)!)
        }
        return frame
    }
}
