import CDPDK
import CLinux
import Wire
@testable import DPDK
@testable import Dataplane

/// What arrives, in the words of drivers and of `rx-checksum`: contract section 2. And what vhost makes of what leaves.
enum Arrivals {
    private static let networks = Specimen.Network.allCases

    private static func settled(_ packet: borrowing Packet, _ arrival: StateMapping.Arrival, _ policy: ReceivePolicy,
                                _ counters: TestCounters) -> ChecksumState? {
        guard case .state(let state) = arrival else { return nil }
        packet.state = state
        policy.settle(packet, counters.checksums)
        return packet.state
    }

    // MARK: virtio header (tap)

    static func tap(_ report: Report) {
        for specimen in Matrix.specimens {
            let packet = PacketBench.shared.packet(specimen.unfinished, .none), counters = TestCounters()
            var header = apus_vnet_header()
            header.flags = UInt8(APUS_VNET_NEEDS_CSUM)
            header.csum_start = UInt16(specimen.l4)
            header.csum_offset = UInt16(specimen.offset)
            let state = settled(packet, StateMapping.arrival(of: packet, header), .device, counters)
            report.count(("arrival", "tap, unfinished"), ("protocol", specimen.transport.rawValue), ("network", specimen.network.rawValue),
                         ("nesting", "\(specimen.tunnel.rawValue), \(specimen.tags) tags"))
            let isPlainSCTP = specimen.transport == .sctp && specimen.tunnel == .plain && specimen.hasCertainPseudoHeader
            let kind: ChecksumState.Kind = isPlainSCTP ? .unnecessary : specimen.isKnown ? .known : .opaque
            report.expect(state?.kind == kind && Int(state!.start) == specimen.l4 && Int(state!.offset) == specimen.offset,
                          "unfinished \(specimen.name) from a tap: \(String(describing: state?.kind))")
            // SCTP is finished at once: NEEDS_CSUM is no word for a CRC.
            report.expect(packet.bytes == (isPlainSCTP ? specimen.finished : specimen.unfinished), "unfinished \(specimen.name) from a tap: bytes")
            guard specimen.isKnown else { continue }
            // A field that is not the seed asks for something else: literal.
            var other = specimen.unfinished
            Reference.put(&other, specimen.field, Reference.word(other, specimen.field) ^ 0x0101)
            let strange = PacketBench.shared.packet(other, .none)
            report.expect(settled(strange, StateMapping.arrival(of: strange, header), .device, counters)?.kind == .opaque, "strange seed of \(specimen.name)")
            // DATA_VALID, and nothing.
            header.flags = UInt8(APUS_VNET_DATA_VALID)
            let valid = PacketBench.shared.packet(specimen.finished, .none)
            report.expect(settled(valid, StateMapping.arrival(of: valid, header), .device, counters)?.kind == .unnecessary, "valid \(specimen.name)")
            report.expect(settled(valid, StateMapping.arrival(of: valid, apus_vnet_header()), .device, counters)?.kind == ChecksumState.Kind.none, "plain \(specimen.name)")
        }
        superframes(report)
        fragments(report)
    }

    private static func superframes(_ report: Report) {
        // virtio 1.2, 5.1.6: gso_type. 2 and 0x7f are nobody's.
        let types: [(Int, Specimen.Transport, ChecksumState.Segmentation)] = [
            (1, .tcp, .tcp4), (4, .tcp, .tcp6), (3, .udp, .udpFragment), (5, .udp, .udpDatagrams), (2, .tcp, .none), (0x7f, .tcp, .none),
        ]
        for (type, transport, cut) in types {
            for network in [Specimen.Network.ipv4, .ipv6, .segments, .sourceRoute, .unknownRouting] {
                for (size, payload) in [(1448, 5000), (0, 5000), (1, 5000), (2, 5000), (8, 5000), (5000, 4000), (1001, 5000)] {
                    for hasLength in [true, false] {
                        let specimen = Specimen(transport, network, payload: payload)
                        var frame = specimen.unfinished
                        if !hasLength { Reference.put(&frame, specimen.field, specimen.seed(frame, length: 0)) }
                        let packet = PacketBench.shared.packet(frame, .none)
                        var header = apus_vnet_header()
                        header.flags = UInt8(APUS_VNET_NEEDS_CSUM)
                        header.csum_start = UInt16(specimen.l4)
                        header.csum_offset = UInt16(specimen.offset)
                        header.gso_type = UInt8(type)
                        header.gso_size = UInt16(size)
                        let arrival = StateMapping.arrival(of: packet, header)
                        report.count(("arrival", "tap, superframe of type \(type)"), ("network", network.rawValue))
                        let name = "superframe of type \(type), \(size) a segment, \(specimen.name)"
                        let isFragments = cut == .udpFragment
                        let isGood = cut != .none && specimen.isKnown && size > 0 && (!isFragments || size % 8 == 0)
                            && (payload + (isFragments ? 8 : 0) + size - 1) / max(1, size) <= 1400
                        guard case .state(let state) = arrival else { report.expect(!isGood, "\(name): dropped"); continue }
                        report.expect(isGood, "\(name): accepted")
                        let isSuperframe = payload > size
                        let expected: ChecksumState.Segmentation = !isSuperframe ? .none : transport == .tcp ? (specimen.isIPv6 ? .tcp6 : .tcp4) : cut
                        report.expect(state.kind == .known && state.segmentation == expected, "\(name): \(state.segmentation)")
                        report.expect(packet.bytes == specimen.unfinished, "\(name): the seed has its length")
                    }
                }
            }
        }
    }

    /// A fragment's checksum is finished literally, and its padding is no part of it.
    private static func fragments(_ report: Report) {
        for (place, padding) in [(0x2000, 0), (0x2000, 7), (0x0010, 0), (0x2010, 5)] {
            for transport in [Specimen.Transport.udp, .tcp] {
                let specimen = Specimen(transport, .ipv4, padding: padding)
                var frame = specimen.unfinished
                Reference.put(&frame, specimen.l3 + 6, place)
                let packet = PacketBench.shared.packet(frame, .none), counters = TestCounters()
                var header = apus_vnet_header()
                header.flags = UInt8(APUS_VNET_NEEDS_CSUM)
                header.csum_start = UInt16(specimen.l4)
                header.csum_offset = UInt16(specimen.offset)
                let state = settled(packet, StateMapping.arrival(of: packet, header), .device, counters)
                report.count(("arrival", "tap, unfinished fragment"), ("padding", "\(padding)"))
                let expected = Reference.completed(Array(frame.prefix(specimen.end)), start: specimen.l4, offset: specimen.offset)
                report.expect(state == ChecksumState.none && Array(packet.bytes.prefix(specimen.end)) == expected, "fragment \(place) of \(transport)")
                // Whatever a driver says of its checksum, a fragment is not verified.
                unsafe apus_mbuf_set_offload(packet.mbuf, apus_flag_rx_l4_good, 0, 0, 0, 0)
                report.expect(settled(packet, StateMapping.arrival(of: packet), .device, counters) == ChecksumState.none, "good fragment \(place)")
            }
        }
        // Behind an IPv6 fragment header nothing is known.
        var frame = Specimen(.udp, .hopByHop).unfinished
        frame[54] = 44
        frame.replaceSubrange(54..<62, with: [17, 0, 0, 1, 0, 0, 0, 9])
        frame[20] = 44
        let packet = PacketBench.shared.packet(frame, .none), counters = TestCounters()
        var header = apus_vnet_header()
        header.flags = UInt8(APUS_VNET_NEEDS_CSUM)
        header.csum_start = 62
        header.csum_offset = 6
        let state = settled(packet, StateMapping.arrival(of: packet, header), .device, counters)
        report.count(("arrival", "tap, unfinished fragment"))
        report.expect(state == ChecksumState.none && packet.bytes == Reference.completed(frame, start: 62, offset: 6), "fragment of IPv6")
    }

    // MARK: mbuf flags

    static func flags(_ report: Report) {
        let words: [(String, UInt64)] = [("unknown", apus_flag_rx_l4_unknown), ("good", apus_flag_rx_l4_good), ("bad", apus_flag_rx_l4_bad), ("partial", apus_flag_rx_l4_partial)]
        for specimen in Matrix.specimens where specimen.tunnel == .plain {
            for (word, flag) in words {
                let frame = word == "partial" ? specimen.unfinished : specimen.finished
                let packet = PacketBench.shared.packet(frame, .none), counters = TestCounters()
                unsafe apus_mbuf_set_offload(packet.mbuf, flag, 0, 0, 0, 0)
                let state = settled(packet, StateMapping.arrival(of: packet), .device, counters)
                report.count(("arrival", "flags: \(word)"), ("protocol", specimen.transport.rawValue), ("network", specimen.network.rawValue), ("nesting", "plain, \(specimen.tags) tags"))
                let isSCTP = specimen.transport == .sctp && specimen.hasCertainPseudoHeader
                let expected: ChecksumState.Kind = switch word {
                case "good": specimen.isKnown ? .unnecessary : .none
                case "bad": .bad
                case "partial": specimen.isKnown ? .known : isSCTP ? .unnecessary : .opaque
                default: .none
                }
                report.expect(state?.kind == expected, "\(word) \(specimen.name): \(String(describing: state?.kind)), not \(expected)")
                if word == "partial" {
                    report.expect(state.map { Int($0.start) == specimen.l4 && Int($0.offset) == specimen.offset } ?? false, "\(word) \(specimen.name): place")
                    report.expect(packet.bytes == (isSCTP ? specimen.finished : frame), "\(word) \(specimen.name): bytes")
                }
            }
            merged(specimen, words, report)
        }
        // UDP without a checksum has none that could be good.
        for network in networks {
            let specimen = Specimen(.udp, network)
            var frame = specimen.finished
            Reference.put(&frame, specimen.field, 0)
            let packet = PacketBench.shared.packet(frame, .none)
            unsafe apus_mbuf_set_offload(packet.mbuf, apus_flag_rx_l4_good, 0, 0, 0, 0)
            report.count(("arrival", "flags: UDP without a checksum"))
            report.expect(settled(packet, StateMapping.arrival(of: packet), .device, TestCounters()) == ChecksumState.none, "good without: \(specimen.name)")
        }
    }

    /// RX_LRO: a superframe; trusted with GOOD, whatever the field holds.
    private static func merged(_ specimen: Specimen, _ words: [(String, UInt64)], _ report: Report) {
        let large = Specimen(specimen.transport, specimen.network, tags: specimen.tags, payload: 5000, padding: specimen.padding)
        for (word, flag) in words {
            var frame = large.finished
            if word == "good" { Reference.put(&frame, large.field, 0x5a5a) } else if word == "partial" { frame = large.unfinished }
            let packet = PacketBench.shared.packet(frame, .none)
            unsafe apus_mbuf_set_offload(packet.mbuf, flag | apus_flag_rx_lro, 0, 0, 0, 1000)
            report.count(("arrival", "flags: merged, \(word)"), ("protocol", large.transport.rawValue))
            let isGood = large.isKnown && (word == "partial" || word == "good" && large.transport == .tcp)
            guard case .state(let state) = StateMapping.arrival(of: packet) else { report.expect(!isGood, "merged \(word) \(large.name): dropped"); continue }
            let cut: ChecksumState.Segmentation = large.transport == .udp ? .udpFragment : large.isIPv6 ? .tcp6 : .tcp4
            report.expect(isGood && state.kind == .known && state.segmentation == cut && state.segmentSize == 1000, "merged \(word) \(large.name): \(state.kind) \(state.segmentation)")
            report.expect(packet.bytes == large.unfinished, "merged \(word) \(large.name): reseeded")
        }
    }

    // MARK: rx-checksum

    static func policies(_ report: Report) {
        for specimen in Matrix.specimens {
            for policy in [ReceivePolicy.device, .init(infers: true), .init(verifies: true), .init(infers: true, verifies: true)] {
                for (content, frame) in [("right", specimen.finished), ("unfinished", specimen.unfinished), ("wrong", spoiled(specimen)), ("without", without(specimen))] {
                    let packet = PacketBench.shared.packet(frame, .none), counters = TestCounters()
                    policy.settle(packet, counters.checksums)
                    report.count(("rx-checksum", policy == .device ? "device" : (policy.infers ? "infer " : "") + (policy.verifies ? "verify" : "")),
                                 ("protocol", specimen.transport.rawValue), ("network", specimen.network.rawValue), ("arrival", content))
                    let name = "\(content) \(specimen.name) with \(policy)"
                    // In a tunnel the outermost transport is what is found: VXLAN's UDP, or none.
                    let outer = specimen.tunnel == .plain ? specimen.transport : specimen.tunnel == .vxlan ? .udp : nil
                    let isCertain = specimen.tunnel == .plain ? specimen.hasCertainPseudoHeader : outer != nil
                    var expected = ChecksumState.Kind.none, sums: UInt64 = 0
                    if policy.infers, content == "unfinished", specimen.isKnown { expected = .known }
                    else if policy.verifies, isCertain, content != "without" || outer != .udp || specimen.tunnel != .plain {
                        sums = 1
                        // An enclosing checksum is the final one already; what is unfinished or wrong inside it makes it wrong.
                        let isFinal = content == "right" || (content == "unfinished" && specimen.unfinished == specimen.finished)
                        expected = isFinal ? .unnecessary : .bad
                    }
                    report.expect(packet.state.kind == expected, "\(name): \(packet.state.kind), not \(expected)")
                    report.expect(counters.full(.verify) == sums && counters.fullTotal == sums, "\(name): full sums")
                    report.expect(packet.bytes == frame, "\(name): bytes")
                }
            }
        }
    }

    private static func spoiled(_ specimen: Specimen) -> [UInt8] {
        var frame = specimen.finished
        frame[specimen.end - 3] ^= 0x40
        return frame
    }

    private static func without(_ specimen: Specimen) -> [UInt8] {
        var frame = specimen.finished
        Reference.put(&frame, specimen.field, 0)
        return frame
    }

    // MARK: What vhost does to what leaves

    /// As a guest's queue hands it to the library.
    static func preparedForVhost(_ packet: consuming Packet, _ counters: TestCounters) -> Packet? {
        let shared = UnsafeMutablePointer<apus_vhost_port>.allocate(capacity: 1)
        unsafe shared.initialize(to: apus_vhost_port())
        defer { unsafe shared.deallocate() }
        let queue = unsafe VhostQueue(shared: shared, receiveQueue: 0, transmitQueue: 0, isShared: false)
        return queue.prepare(packet, PacketBench.shared.memory, counters.port(0))
    }

    /// The library's enqueue seeds anew (rte_net_intel_cksum_prepare): nothing of it may reach the guest.
    static func vhost(_ report: Report) {
        let counters = TestCounters()
        for network in networks {
            for transport in [Specimen.Transport.tcp, .udp] {
                for tags in 0...2 {
                    for isSuperframe in transport == .tcp ? [false, true] : [false] {
                        for isShared in [false, true] {
                            let specimen = Specimen(transport, network, tags: tags, payload: isSuperframe ? 4000 : 77)
                            guard specimen.isKnown else { continue }
                            var state = ChecksumState.known(start: UInt16(specimen.l4), offset: UInt16(specimen.offset))
                            if isSuperframe { state = state.superframe(specimen.isIPv6 ? .tcp6 : .tcp4, segmentSize: 1448, congestion: false) }
                            let packet = PacketBench.shared.packet(specimen.unfinished, state)
                            let other = isShared ? packet.clone(PacketBench.shared.small.allocator) : nil
                            let name = "\(specimen.name)\(isSuperframe ? ", superframe" : "")\(isShared ? ", shared" : "") to vhost"
                            report.count(("vhost", isSuperframe ? "superframe" : "packet"), ("network", network.rawValue), ("shared", "\(isShared)"), ("nesting", "plain, \(tags) tags"))
                            guard let ready = preparedForVhost(packet, counters) else { report.expect(false, "\(name): no memory"); continue }
                            unsafe _ = apus_vhost_enqueue_seeds(ready.mbuf)
                            report.expect(ready.bytes == specimen.unfinished, "\(name): seed \(Reference.word(ready.bytes, specimen.field)), not \(Reference.word(specimen.unfinished, specimen.field))")
                            let flags = unsafe apus_mbuf_flags(ready.mbuf)
                            report.expect(flags & (transport == .tcp ? apus_flag_tx_tcp : apus_flag_tx_udp) != 0 && (flags & apus_flag_tx_tso != 0) == isSuperframe, "\(name): flags")
                            if let other { report.expect(other.bytes == specimen.unfinished, "\(name): another holder's bytes changed") }
                        }
                    }
                }
            }
        }
    }
}
