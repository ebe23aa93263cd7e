@testable import EBPF

/// `Traffic`, and besides: what tunnels, firewalls, pings, routers and SYN proxies live on. Sums of what is put together
/// here are not all right; nobody checks them.
struct WideTraffic {
    private var base: Traffic
    private var random: SplitMix

    init(seed: UInt64) {
        base = Traffic(seed: seed)
        random = SplitMix(seed &+ 1)
    }

    mutating func next() -> [UInt8] {
        switch Int.random(in: 0..<16, using: &random) {
        case 0...6: return base.next()
        case 7: return cut(icmp())
        case 8: return cut(icmpv6())
        case 9...10: return cut(tcp())
        case 11: return cut(tunnelled())
        case 12: return cut(tagged())
        case 13: return cut(arp())
        case 14: return cut(small())
        default: return cut(expiring())
        }
    }

    /// How many packets there are of each kind, by their bytes alone. One may be of several.
    static func census(_ packets: [[UInt8]]) -> [String: Int] {
        var counts: [String: Int] = [:]
        for packet in packets {
            func half(_ at: Int) -> Int { at + 1 < packet.count ? Int(packet[at]) << 8 | Int(packet[at + 1]) : -1 }
            var at = 12
            while [0x8100, 0x88a8].contains(half(at)) { at += 4 }
            if at > 12 { counts["with VLAN tags", default: 0] += 1 }
            let size = packet.count - at - 2
            switch half(at) {
            case 0x0800: counts[size < 20 || size < half(at + 4) ? "IPv4, cut short" : "IPv4", default: 0] += 1
            case 0x86dd: counts[size < 40 || size < half(at + 6) + 40 ? "IPv6, cut short" : "IPv6", default: 0] += 1
            case 0x0806: counts["ARP", default: 0] += 1
            case -1: counts["cut short before a protocol", default: 0] += 1
            default: counts["of no protocol", default: 0] += 1
            }
        }
        return counts
    }

    /// One in six is truncated.
    private mutating func cut(_ packet: [UInt8]) -> [UInt8] {
        let isWhole = Int.random(in: 0..<6, using: &random) != 0
        return isWhole ? packet : Array(packet.prefix(Int.random(in: 14...packet.count, using: &random)))
    }

    private mutating func byte() -> UInt8 { UInt8.random(in: 0...255, using: &random) }
    private mutating func one<T>(_ of: [T]) -> T { of.randomElement(using: &random)! }
    private mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in byte() } }

    /// Of the addresses `Traffic` uses, and of networks behind and in front of a NAT.
    private mutating func address() -> [UInt8] {
        one([[10, 0, 0, UInt8.random(in: 1...9, using: &random)], [10, 0, 0, 100], [10, 0, 0, 2], [192, 0, 2, 1], [198, 51, 100, UInt8.random(in: 1...4, using: &random)]])
    }

    private mutating func frame(_ protocolNumber: UInt8, _ body: [UInt8], isIPv6: Bool = false) -> [UInt8] {
        var frame = Frame(source: address(), destination: address(), isIPv6: isIPv6, payload: body).bytes
        // Frame makes TCP: its 20 bytes of header go, the sizes and the header's sum are put right.
        let l4 = isIPv6 ? 54 : 34
        frame.removeSubrange(l4..<(l4 + 20))
        if isIPv6 {
            frame.replaceSubrange(18..<20, with: Frame.big(UInt16(body.count)))
            frame[20] = protocolNumber
        } else {
            frame.replaceSubrange(16..<18, with: Frame.big(UInt16(20 + body.count)))
            frame[23] = protocolNumber
            frame.replaceSubrange(24..<26, with: [0, 0])
            frame.replaceSubrange(24..<26, with: Frame.big(~UInt16(Frame.sum(Array(frame[14..<34])))))
        }
        return frame
    }

    private mutating func icmp() -> [UInt8] {
        // Echo, its answer, "fragmentation needed" and "time exceeded" with what they are about.
        let kind: (UInt8, UInt8) = one([(8, 0), (0, 0), (3, 4), (3, 1), (11, 0)])
        let quoted = Array(base.next().dropFirst(14).prefix(Int.random(in: 0...60, using: &random)))
        let rest = kind.0 == 8 || kind.0 == 0 ? bytes(one([56, 56, 0, 8, 100])) : quoted
        return frame(1, [kind.0, kind.1, byte(), byte(), 0, one([1, 2, 3]), 0, one([1, 2, 3])] + rest)
    }

    private mutating func icmpv6() -> [UInt8] {
        frame(58, [one([128, 129, 2, 135]), 0, byte(), byte(), 0, 1, 0, 1] + bytes(Int.random(in: 0...60, using: &random)), isIPv6: true)
    }

    /// Flags in every combination, options, numbers that mean something to somebody.
    private mutating func tcp() -> [UInt8] {
        let options: [UInt8] = one([[], [], [2, 4, 5, 0xb4], [2, 4, 5, 0xb4, 1, 3, 3, 7], [1, 1, 8, 10] + bytes(8), [0xfd, 4, 0xaa, 0xbb]])
        let ports = Frame.big(one([40000, 40001, 80, 22])) + Frame.big(one([8080, 8081, 80, 443, 22, 2000]))
        let flags: UInt8 = one([0x02, 0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x00, 0x3f, byte()])
        let header = ports + bytes(8) + [UInt8((20 + options.count) / 4) << 4, flags, 0xff, 0xff, byte(), byte(), 0, 0]
        return frame(6, header + options + bytes(one([0, 0, 6, 40])), isIPv6: Int.random(in: 0..<4, using: &random) == 0)
    }

    private mutating func tunnelled() -> [UInt8] {
        let inner = base.next()
        let isIPv6 = Int.random(in: 0..<4, using: &random) == 0
        switch Int.random(in: 0..<6, using: &random) {
        case 0: return frame(4, Array(inner.dropFirst(14)), isIPv6: isIPv6)
        case 1: return frame(47, one([[0, 0, 0x65, 0x58], [0x20, 0, 0x65, 0x58, 0, 0, 0, 9], [0, 0, 8, 0], [0x80, 0, 8, 0]]) + inner, isIPv6: isIPv6)
        case 2: return frame(47, [0, 0, 8, 0] + Array(inner.dropFirst(14)))
        case 3:     // GUE, as edge firewalls see it
            return frame(17, [0xc0, 0x01, 0x1a, 0x0a, 0, 0, 0, 0] + Array(inner.dropFirst(14)), isIPv6: true)
        default:
            let network: UInt8 = one([9, 9, 9, 10])
            return frame(17, [0xc0, byte(), 0x12, 0xb5] + Frame.big(UInt16(truncatingIfNeeded: 16 + inner.count)) + [0, 0, one([8, 8, 8, 0]), 0, 0, 0, 0, 0, network, 0] + inner)
        }
    }

    private mutating func tagged() -> [UInt8] {
        let tag: UInt16 = one([4011, 42, 100, 0xfff])
        let packet = frame(one([6, 17]), bytes(40))
        return Array(packet[0..<12]) + one([[0x81, 0x00], [0x88, 0xa8]]) + Frame.big(tag) + packet[12...]
    }

    private mutating func arp() -> [UInt8] {
        Frame.macs + [8, 6, 0, 1, 8, 0, 6, 4, 0, one([1, 2])] + Frame.macs[6..<12] + [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]
    }

    /// Of the sizes that programs treat apart.
    private mutating func small() -> [UInt8] {
        let packet = base.next()
        let size = one([14, 54, 54, 74, 128, 262, 600])
        return size <= packet.count ? Array(packet.prefix(size)) : packet + bytes(size - packet.count)
    }

    /// TTL or hop limit 0 or 1.
    private mutating func expiring() -> [UInt8] {
        let isIPv6 = Bool.random(using: &random)
        var packet = frame(17, [0, 7, 0, 7, 0, 8, 0, 0], isIPv6: isIPv6)
        packet[isIPv6 ? 21 : 22] = one([0, 1, 2])
        return packet
    }
}
