import DPDK
import Wire
@testable import Dataplane

/// The state × leaving matrix of contract sections 2 and 6. Expected bytes come from ``Specimen`` and ``Reference``.
enum Matrix {
    /// Which layers go together: every network header with every transport it can carry, tags and tunnels around the
    /// usual ones.
    static let specimens: [Specimen] = {
        var all: [Specimen] = []
        for network in Specimen.Network.allCases {
            for transport in Specimen.Transport.allCases {
                for padding in [0, 7] { all.append(Specimen(transport, network, padding: padding)) }
            }
        }
        for network in [Specimen.Network.ipv4, .ipv6, .segments] {
            for transport in Specimen.Transport.allCases {
                for tags in 1...2 { all.append(Specimen(transport, network, tags: tags)) }
                // Longer than what is brought together to be written to: its sum goes over many segments.
                all.append(Specimen(transport, network, payload: 601))
                all.append(Specimen(transport, network, payload: 602, padding: 7))
                for tunnel in Specimen.Tunnel.allCases where tunnel != .plain {
                    for tags in 0...2 { all.append(Specimen(transport, network, tunnel: tunnel, tags: tags)) }
                }
            }
        }
        return all
    }()

    private static func place(_ specimen: Specimen) -> (start: UInt16, offset: UInt16) { (UInt16(specimen.l4), UInt16(specimen.offset)) }

    // MARK: Single packets

    static func leaving(_ report: Report) {
        for specimen in specimens {
            let around = Set(specimen.boundaries.flatMap { [$0 - 1, $0, $0 + 1] })
            let single = around.filter { $0 > 14 && $0 < specimen.finished.count }.sorted()
            var splits: [[Int]] = [[], everySmallSegment(specimen)]
            for at in single { splits.append([at]) }
            if specimen.finished.count > 600 { splits += [[257], [301], [302, 401], [303, 304, 305]] }
            for peer in Passage.peers {
                for kind in ChecksumState.Kind.allCases {
                    // Splits meet the code that sums and copies: all of them for two ports, the others see none.
                    let all = peer.name == "takes nothing" || peer.name == "vhost"
                    for split in all ? splits : [[]] {
                        // Drivers place a packet's headers in its first segment, where its state comes from its headers.
                        for isShared in (all || peer.reseeds) && split.isEmpty ? [false, true] : [false] { leave(specimen, kind, peer, split, isShared, report) }
                    }
                }
            }
        }
    }

    private static func everySmallSegment(_ specimen: Specimen) -> [Int] { Array(stride(from: 15, to: specimen.finished.count, by: 9)) }

    private static func leave(_ specimen: Specimen, _ kind: ChecksumState.Kind, _ peer: Passage.Peer, _ split: [Int], _ isShared: Bool,
                              _ report: Report) {
        let (start, offset) = place(specimen)
        var frame = specimen.finished, expected = specimen.finished, state = ChecksumState.none, mayBePartial = false
        var costs: [ChecksumCounters.Cause] = []
        switch kind {
        case .none, .bad:
            state = kind == .bad ? .bad : .none
            Reference.put(&frame, specimen.field, 0xdead)
            expected = frame
        case .unnecessary:
            guard specimen.hasCertainPseudoHeader || specimen.transport == .sctp else { return }
            state = .unnecessary(start: start, offset: offset)
            // Headers that are not together are not rewritten for the sake of what is optional.
            let isTogether = split.isEmpty || split[0] >= specimen.l4 + specimen.headerLength
            mayBePartial = peer.reseeds && !peer.isFull && !isShared && isTogether && isSayable(specimen, peer)
        case .known:
            guard specimen.isKnown else { return }
            state = .known(start: start, offset: offset)
            frame = specimen.unfinished
            mayBePartial = !peer.isFull && isSayable(specimen, peer)
        case .opaque:
            guard specimen.transport != .sctp || (specimen.tunnel == .plain && split.isEmpty && !isShared) else { return }
            state = .opaque(start: start, offset: offset)
            frame = specimen.unfinished
            if specimen.transport == .sctp {
                guard specimen.hasCertainPseudoHeader else { return }
            } else {
                // To the end of the frame, literally.
                expected = Reference.completed(frame, start: specimen.l4, offset: specimen.offset)
                mayBePartial = peer.takes.opaque && !peer.isFull
            }
        }
        if (kind == .known || kind == .opaque), !mayBePartial { costs = [.egress] }
        let outcome = Passage.run(frame, state, to: peer, splits: split, isShared: isShared)
        let name = "\(kind) \(specimen.name) to \(peer.name), split \(split)\(isShared ? ", shared" : "")"
        report.count(("state", "\(kind)"), ("protocol", specimen.transport.rawValue), ("network", specimen.network.rawValue),
                     ("nesting", "\(specimen.tunnel.rawValue), \(specimen.tags) tags"), ("leaving", peer.name), ("padding", "\(specimen.padding)"),
                     ("split", split.isEmpty ? "none" : split.count > 1 ? "many" : split[0] % 2 == 0 ? "even" : "odd"), ("shared", "\(isShared)"))
        report.expect(outcome.isBalanced, "\(name): packets or buffers are missing")
        guard outcome.departures.count == 1 else { return report.expect(false, "\(name): \(outcome.departures.count) left, \(outcome.drops)") }
        let departure = outcome.departures[0]
        report.expect(departure.state.isPartial == mayBePartial, "\(name): left \(departure.state.kind)")
        report.expect(Passage.normal(departure) == expected, "\(name): wrong bytes")
        report.expect(outcome.full == costs, "\(name): full sums \(outcome.full)")
        if kind == .none || kind == .bad { report.expect(departure.state == state, "\(name): untrusted became \(departure.state.kind)") }
        if mayBePartial { report.expect(Int(departure.state.start) == specimen.l4 && Int(departure.state.offset) == specimen.offset, "\(name): place") }
        if let other = outcome.other { report.expect(other == frame, "\(name): another holder's bytes changed") }
    }

    /// Section 6: known, nothing behind the datagram, and the port's seed convention can be met.
    private static func isSayable(_ specimen: Specimen, _ peer: Passage.Peer) -> Bool {
        specimen.isKnown && specimen.padding == 0 && peer.takes.known && (peer.takes.extensions || !specimen.hasExtensions)
    }

    // MARK: Superframes

    static func superframes(_ report: Report) {
        let networks: [Specimen.Network] = [.ipv4, .options, .ipv6, .both, .segments, .routing0]
        for network in networks {
            for (transport, tags, payload, size) in [(Specimen.Transport.tcp, 0, 9001, 1448), (.tcp, 2, 3001, 1001), (.tcp, 1, 60_000, 8948), (.udp, 0, 9001, 1472), (.udp, 2, 3001, 1001)] {
                let specimen = Specimen(transport, network, tags: tags, payload: payload)
                let isUDP = transport == .udp, isIPv6 = specimen.isIPv6
                let cuts: [ChecksumState.Segmentation] = isUDP ? [.udpDatagrams, .udpFragment] : [isIPv6 ? .tcp6 : .tcp4]
                for cut in cuts {
                    for kind in [ChecksumState.Kind.none, .bad, .known] {
                        for peer in Passage.peers { for split in [0, specimen.l4 + 21, 501] { superframe(specimen, kind, cut, size, peer, split, report) } }
                    }
                }
            }
        }
        // Beyond 65 535 bytes the length field is 0 (Linux's BIG TCP): the frame's end is the packet's.
        for network in [Specimen.Network.ipv4, .ipv6, .both] {
            for peer in Passage.peers {
                let specimen = Specimen(.tcp, network, payload: 65_601)
                superframe(specimen, .known, specimen.isIPv6 ? .tcp6 : .tcp4, 1448, peer, 30_001, report)
            }
        }
        for tunnel in Specimen.Tunnel.allCases where tunnel != .plain {
            let specimen = Specimen(.tcp, .ipv4, tunnel: tunnel, payload: 5000)
            let state = ChecksumState.opaque(start: UInt16(specimen.l4), offset: 16).superframe(.tcp4, segmentSize: 1400, congestion: false)
            for peer in Passage.peers {
                let outcome = Passage.run(specimen.unfinished, state, to: peer)
                report.count(("superframe", "in a tunnel: \(tunnel.rawValue)"), ("leaving", peer.name))
                report.expect(outcome.departures.isEmpty && outcome.drops == [.cannotSegment], "superframe in \(tunnel) to \(peer.name): \(outcome.drops)")
            }
        }
    }

    private static func superframe(_ specimen: Specimen, _ kind: ChecksumState.Kind, _ cut: ChecksumState.Segmentation, _ size: Int,
                                   _ peer: Passage.Peer, _ split: Int, _ report: Report) {
        let size = cut == .udpFragment ? size & ~7 : size
        let base: ChecksumState = kind == .known ? .known(start: UInt16(specimen.l4), offset: UInt16(specimen.offset)) : kind == .bad ? .bad : .none
        let state = base.superframe(cut, segmentSize: UInt16(size), congestion: true)
        let frame = kind == .known ? specimen.unfinished : specimen.finished
        let outcome = Passage.run(frame, state, to: peer, splits: split == 0 ? [] : [split])
        let name = "\(kind) superframe \(cut) of \(specimen.name) to \(peer.name), split \(split)"
        report.count(("superframe", "\(cut)"), ("state", "\(kind)"), ("leaving", peer.name), ("network", specimen.network.rawValue),
                     ("nesting", "plain, \(specimen.tags) tags"), ("split", split == 0 ? "none" : split % 2 == 0 ? "even" : "odd"))
        report.expect(outcome.isBalanced, "\(name): packets or buffers are missing")
        let takes = switch cut {
        case .tcp4: peer.takes.tcp4
        case .tcp6: peer.takes.tcp6
        case .udpDatagrams: peer.takes.udpDatagrams
        case .udpFragment, .none: false
        }
        if kind != .known || (cut == .udpFragment && specimen.isIPv6) {
            return report.expect(outcome.departures.isEmpty && outcome.drops == [.cannotSegment], "\(name): \(outcome.drops)")
        }
        let isWhole = takes && !peer.isFull && (peer.takes.extensions || !specimen.hasExtensions)
        if isWhole {
            let isSame = outcome.departures.count == 1 && outcome.departures[0].bytes == frame && outcome.departures[0].state == state
            return report.expect(isSame && outcome.full.isEmpty, "\(name): \(outcome.departures.count) left, \(outcome.drops)")
        }
        if cut == .udpFragment { return checkFragments(specimen, outcome, size, name, report) }
        let mayBePartial = !peer.isFull && isSayable(specimen, peer)
        report.expect(outcome.full.allSatisfy { $0 == .segment } && outcome.full.count == (mayBePartial ? 0 : outcome.departures.count), "\(name): full sums")
        report.expect(outcome.departures.allSatisfy { $0.state.isPartial == mayBePartial && !$0.state.isSuperframe }, "\(name): states")
        checkSegments(specimen, outcome.departures.map(Passage.normal), size, name, report)
    }

    /// RFC 9293 and RFC 768: stream or datagrams, numbers, flags, lengths, every checksum.
    private static func checkSegments(_ specimen: Specimen, _ segments: [[UInt8]], _ size: Int, _ name: String, _ report: Report) {
        let header = specimen.l4 + specimen.headerLength, l3 = specimen.l3, frame = specimen.finished
        var payload: [UInt8] = []
        report.expect(segments.count == (frame.count - header + size - 1) / size, "\(name): \(segments.count) segments")
        for (number, bytes) in segments.enumerated() {
            guard bytes.count > header else { return report.expect(false, "\(name): segment without payload") }
            let length = bytes.count - specimen.l4, isLast = number == segments.count - 1
            report.expect(isLast ? bytes.count - header <= size : bytes.count - header == size, "\(name): size of segment \(number)")
            let stated = Reference.word(bytes, l3 + (specimen.isIPv6 ? 4 : 2)) + (specimen.isIPv6 ? 40 : 0)
            report.expect(stated == bytes.count - l3, "\(name): IP length of segment \(number)")
            let sum = Reference.fold(specimen.seed(bytes, length: length) + Reference.sum(bytes[specimen.l4...]))
            report.expect(sum == 0xffff, "\(name): checksum of segment \(number)")
            if specimen.transport == .tcp {
                let at = specimen.l4 + 4
                report.expect(Reference.word(bytes, at) << 16 + Reference.word(bytes, at + 2)
                    == Reference.word(frame, at) << 16 + Reference.word(frame, at + 2) + payload.count, "\(name): sequence number \(number)")
                report.expect(bytes[specimen.l4 + 13] == 0x10 | (isLast ? 0x08 : 0) | (number == 0 ? 0x80 : 0), "\(name): flags of segment \(number)")
            } else {
                report.expect(Reference.word(bytes, specimen.l4 + 4) == length, "\(name): UDP length of segment \(number)")
            }
            if !specimen.isIPv6 {
                report.expect(Reference.isIPv4HeaderRight(bytes, at: l3), "\(name): IPv4 header of segment \(number)")
                report.expect(Reference.word(bytes, l3 + 4) == Reference.word(frame, l3 + 4) + number, "\(name): identification \(number)")
            }
            report.expect(bytes[..<l3].elementsEqual(frame[..<l3]), "\(name): link layer of segment \(number)")
            payload += bytes[header...]
        }
        report.expect(payload.elementsEqual(frame[header...]), "\(name): payload")
    }

    /// RFC 791: put together, they are the finished datagram.
    private static func checkFragments(_ specimen: Specimen, _ outcome: Passage.Outcome, _ size: Int, _ name: String, _ report: Report) {
        var datagram: [UInt8] = []
        report.expect(outcome.full == [.segment], "\(name): full sums \(outcome.full)")
        for (number, departure) in outcome.departures.enumerated() {
            let bytes = departure.bytes, isLast = number == outcome.departures.count - 1, l3 = specimen.l3
            let word = Reference.word(bytes, l3 + 6)
            report.expect(departure.state == .none, "\(name): state of fragment \(number)")
            report.expect(word & 0x1fff == datagram.count / 8 && datagram.count % 8 == 0, "\(name): offset of fragment \(number)")
            report.expect((word & 0x2000 == 0) == isLast, "\(name): more of fragment \(number)")
            report.expect(Reference.word(bytes, l3 + 2) == bytes.count - l3 && bytes.count - specimen.l4 <= size, "\(name): length of fragment \(number)")
            report.expect(Reference.isIPv4HeaderRight(bytes, at: l3), "\(name): header of fragment \(number)")
            report.expect(Reference.word(bytes, l3 + 4) == Reference.word(specimen.finished, l3 + 4), "\(name): identification \(number)")
            datagram += bytes[specimen.l4...]
        }
        report.expect(datagram.elementsEqual(specimen.finished[specimen.l4...]), "\(name): the datagram put together")
    }

    // MARK: Zeros and lengths

    /// UDP's own rules: no checksum, a computed zero, a length below IP's.
    static func edges(_ report: Report) {
        for network in Specimen.Network.allCases {
            let specimen = Specimen(.udp, network)
            guard specimen.isKnown else { continue }
            for peer in Passage.peers {
                let state = ChecksumState.unnecessary(start: UInt16(specimen.l4), offset: 6)
                var without = specimen.finished
                Reference.put(&without, specimen.field, 0)
                let outcome = Passage.run(without, state, to: peer)
                report.count(("edge", "UDP without a checksum"), ("leaving", peer.name))
                report.expect(outcome.departures.map(\.bytes) == [without], "without a checksum: \(specimen.name) to \(peer.name)")

                // A payload word that makes the checksum zero: sent as all ones (RFC 768).
                var zero = specimen.unfinished
                Reference.put(&zero, specimen.l4 + 8, 0)
                Reference.put(&zero, specimen.l4 + 8, ~Reference.sum(zero[specimen.l4..<specimen.end]) & 0xffff)
                let known = ChecksumState.known(start: UInt16(specimen.l4), offset: 6)
                let sent = Passage.run(zero, known, to: peer)
                report.count(("edge", "a computed zero"), ("leaving", peer.name))
                report.expect(sent.departures.count == 1 && Reference.word(Passage.normal(sent.departures[0]), specimen.field) == 0xffff, "zero: \(specimen.name) to \(peer.name)")

                // The last 11 bytes of the IP packet are not the datagram's.
                var short = specimen.unfinished
                let length = specimen.end - specimen.l4 - 11
                Reference.put(&short, specimen.l4 + 4, length)
                Reference.put(&short, specimen.field, specimen.seed(short, length: length))
                var expected = Reference.completed(Array(short.dropLast(11)), start: specimen.l4, offset: 6)
                expected += short.suffix(11)
                let cut = Passage.run(short, known, to: peer)
                report.count(("edge", "UDP shorter than IP"), ("leaving", peer.name))
                report.expect(cut.departures.count == 1 && !cut.departures[0].state.isPartial && cut.departures[0].bytes == expected, "short: \(specimen.name) to \(peer.name)")
            }
        }
    }

    // MARK: MTU

    static func mtu(_ report: Report) {
        for network in [Specimen.Network.ipv4, .options, .ipv6, .both] {
            for tags in 0...2 {
                for extra in [-1, 0, 1] {
                    let specimen = Specimen(.tcp, network, tags: tags, payload: 700)
                    let size = specimen.finished.count - specimen.l3
                    for (frame, state) in [(specimen.finished, ChecksumState.none), (specimen.unfinished, .known(start: UInt16(specimen.l4), offset: 16))] {
                        for var peer in Passage.peers {
                            peer.mtu = size - extra
                            let outcome = Passage.run(frame, state, to: peer)
                            report.count(("mtu", extra > 0 ? "too long" : "fits"), ("leaving", peer.name))
                            report.expect(outcome.drops == (extra > 0 ? [.largerThanMTU] : []), "\(size) bytes of \(specimen.name) into \(peer.mtu): \(outcome.drops)")
                        }
                    }
                    // Segments of 1448 and more from one MTU, 700 of the other.
                    let large = Specimen(.tcp, network, tags: tags, payload: 5000)
                    let state = ChecksumState.known(start: UInt16(large.l4), offset: 16)
                        .superframe(large.isIPv6 ? .tcp6 : .tcp4, segmentSize: 1448, congestion: true)
                    let header = large.l4 - large.l3 + 20
                    for var peer in Passage.peers {
                        peer.mtu = header + 701 + extra
                        let outcome = Passage.run(large.unfinished, state, to: peer)
                        report.count(("mtu", "superframe"), ("leaving", peer.name))
                        let name = "superframe of \(large.name) to \(peer.name) with MTU \(peer.mtu)"
                        if outcome.departures.count == 1 {
                            report.expect(outcome.departures[0].state.segmentSize == 701 + extra, "\(name): segments of \(outcome.departures[0].state.segmentSize)")
                        } else {
                            checkSegments(large, outcome.departures.map(Passage.normal), 701 + extra, name, report)
                        }
                    }
                }
            }
        }
        let datagrams = Specimen(.udp, .ipv4, payload: 5000)
        let state = ChecksumState.known(start: UInt16(datagrams.l4), offset: 6).superframe(.udpDatagrams, segmentSize: 1472, congestion: false)
        for var peer in Passage.peers {
            peer.mtu = 1400
            let outcome = Passage.run(datagrams.unfinished, state, to: peer)
            report.count(("mtu", "datagrams"), ("leaving", peer.name))
            report.expect(outcome.drops == [.largerThanMTU], "datagrams too long for \(peer.name): \(outcome.drops)")
        }
    }
}
