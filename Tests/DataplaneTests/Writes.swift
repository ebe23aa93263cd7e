import DPDK
import EBPF
import Wire
@testable import Dataplane

/// Contract section 5 over every kind of packet: what a program wrote, and what its receiver must find.
enum Writes {
    /// A change of bytes in place, at distances from the named headers, and what becomes of a trusted packet.
    struct Change: Sendable {
        let name: String
        let write: @Sendable (inout FakeProgram.View, Specimen) -> Void
        /// How much longer the link layer is afterwards.
        var shift = 0
        /// What it may cost in full sums, for a verified packet.
        var mayRecompute = false
        /// The program does not touch the transport's bytes.
        var isOutsideTransport = false
    }

    static let changes: [Change] = [
        Change(name: "nothing", write: { _, _ in }, isOutsideTransport: true),
        Change(name: "MAC address", write: { view, _ in view.store(0, [2, 9, 9, 9, 9, 9]) }, isOutsideTransport: true),
        Change(name: "transport header", write: { view, s in view.store16(s.l4 + 2, 0x2222) }),
        Change(name: "payload", write: { view, s in view.store(s.l4 + s.headerLength + 5, [9, 8, 7]) }),
        Change(name: "payload past the shadow", write: { view, s in view.store(s.end - 9, [9, 8, 7]) }, mayRecompute: true),
        Change(name: "field", write: { view, s in view.store16(s.field, 0x4321) }),
        Change(name: "last byte of the source address", write: { view, s in view.store(s.sourceEnd - 1, [0x77]) }, isOutsideTransport: true),
        Change(name: "final destination", write: { view, s in view.store(s.destinationStart, [0x0a, 0x55]) }, isOutsideTransport: true),
        Change(name: "tag pushed", write: { view, _ in
            view.adjustHead(-4)
            view.store(0, Array(view.bytes[4..<16]) + [0x81, 0, 0, 99])
        }, shift: 4, isOutsideTransport: true),
        Change(name: "tag pushed, port rewritten", write: { view, s in
            view.store16(s.l4 + 2, 0x2222)
            view.adjustHead(-4)
            view.store(0, Array(view.bytes[4..<16]) + [0x81, 0, 0, 99])
        }, shift: 4),
        Change(name: "tag popped", write: { view, s in
            guard s.tags > 0 else { return }
            view.store(4, Array(view.bytes[0..<12]))
            view.adjustHead(4)
        }, shift: -4, isOutsideTransport: true),
        Change(name: "in VXLAN", write: { view, _ in encapsulate(&view) }, shift: 50, isOutsideTransport: true),
        Change(name: "in VXLAN, payload rewritten", write: { view, s in
            view.store(s.l4 + s.headerLength + 5, [9, 8, 7])
            encapsulate(&view)
        }, shift: 50),
        Change(name: "in VXLAN without a checksum, port rewritten", write: { view, s in
            view.store16(s.l4 + 2, 0x2222)
            encapsulate(&view)
            view.store16(40, 0)
        }, shift: 50),
    ]

    /// VXLAN over UDP with the checksum of what the program sees, a seed included.
    static func encapsulate(_ view: inout FakeProgram.View) {
        let inner = view.bytes.count
        view.adjustHead(-50)
        view.store(0, [2, 0, 0, 0, 0, 0xe, 2, 0, 0, 0, 0, 0xf, 8, 0, 0x45, 0] + Reference.bytes16(36 + inner)
            + [0, 9, 0, 0, 64, 17, 0, 0, 192, 168, 7, 1, 192, 168, 7, 2, 0xc0, 1, 0x12, 0xb5] + Reference.bytes16(16 + inner) + [0, 0, 8, 0, 0, 0, 0, 0, 42, 0])
        view.store16(24, ~Reference.sum(view.bytes[14..<34]) & 0xffff)
        var finished = view.bytes
        Specimen.finishUDP(&finished, ip: 14, udp: 34)
        view.store16(40, Reference.word(finished, 40))
    }

    static func programs(_ report: Report) {
        let networks: [Specimen.Network] = [.ipv4, .options, .ipv6, .hopByHop, .both, .segments, .visited, .routing0]
        for network in networks {
            for transport in Specimen.Transport.allCases {
                for tags in 0...2 {
                    for padding in [0, 7] {
                        for payload in [33, 400] {
                            let specimen = Specimen(transport, network, tags: tags, payload: payload, padding: padding)
                            for change in changes where change.name != "tag popped" || tags > 0 {
                                for kind in ChecksumState.Kind.allCases where kind != .opaque && (kind != .known || specimen.isKnown) {
                                    run(specimen, change, kind, report)
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    private static func run(_ specimen: Specimen, _ change: Change, _ kind: ChecksumState.Kind, _ report: Report) {
        let start = UInt16(specimen.l4), offset = UInt16(specimen.offset)
        var frame = specimen.finished, state = ChecksumState.unnecessary(start: start, offset: offset)
        switch kind {
        case .known: (frame, state) = (specimen.unfinished, .known(start: start, offset: offset))
        case .none, .bad:
            Reference.put(&frame, specimen.field, 0xdead)
            state = kind == .bad ? .bad : .none
        case .unnecessary, .opaque: break
        }
        let packet = PacketBench.shared.packet(frame, state), counters = TestCounters()
        var shadow = Shadow()
        shadow.take(packet)
        let effect = FakeProgram(run: { change.write(&$0, specimen) })(packet)
        Reconcile(counters: counters.checksums)(packet, effect, shadow)
        report.count(("program", change.name), ("state", "\(kind)"), ("protocol", specimen.transport.rawValue), ("network", specimen.network.rawValue),
                     ("nesting", "plain, \(specimen.tags) tags"), ("padding", "\(specimen.padding)"))
        let name = "\(kind) \(specimen.name), \(change.name)"
        var expected = FakeProgram.View(kind == .none || kind == .bad ? frame : specimen.finished)
        change.write(&expected, specimen)
        var bytes = expected.bytes
        guard state.isTrusted else {
            report.expect(packet.state == state && counters.fullTotal == 0, "\(name): untrusted became \(packet.state.kind)")
            // The IPv4 header's own checksum is another matter.
            var mine = packet.bytes
            blank(&mine, specimen, change)
            blank(&bytes, specimen, change)
            return report.expect(mine == bytes, "\(name): the program's bytes")
        }
        finish(&bytes, specimen, change)
        // A third tag is further than the parser goes: what was known is then kept literally.
        let isWrapped = change.shift == 50 || (change.shift == 4 && specimen.tags == 2)
        // A receiver sums to the end of the frame; behind padding that is egress's business, except where nobody can tell.
        let isPartial = kind == .known && !(isWrapped && specimen.padding > 0)
        let expectedKind: ChecksumState.Kind = kind == .unnecessary ? .unnecessary : !isPartial ? .none : isWrapped ? .opaque : .known
        report.expect(packet.state.kind == expectedKind, "\(name): \(packet.state.kind), not \(expectedKind)")
        if packet.state.isTrusted {
            report.expect(Int(packet.state.start) == specimen.l4 + change.shift && packet.state.offset == offset, "\(name): place \(packet.state.start)")
        }
        var result = packet.bytes
        if packet.state.isPartial, packet.state.field + 2 <= result.count {
            let end = specimen.end + change.shift
            result = Reference.completed(Array(result.prefix(end)), start: Int(packet.state.start), offset: Int(packet.state.offset)) + result[end...]
        }
        report.expect(result == bytes, "\(name): wrong bytes")
        let mayRecompute = change.mayRecompute || (specimen.transport == .sctp && !change.isOutsideTransport) || (isWrapped && specimen.padding > 0)
            || specimen.l4 + specimen.headerLength + 8 > 192 || (isWrapped && specimen.transport == .sctp)
        if kind == .known, !isWrapped || specimen.padding == 0 { report.expect(counters.fullTotal == 0, "\(name): a partial packet was summed") }
        if !mayRecompute { report.expect(counters.fullTotal == 0, "\(name): summed \(counters.fullTotal) times") }
        report.expect(counters.fullTotal == counters.full(.xdpWrite), "\(name): causes")
    }

    /// What a receiver must find: the program's bytes, every checksum right.
    private static func finish(_ bytes: inout [UInt8], _ specimen: Specimen, _ change: Change) {
        let l3 = specimen.l3 + change.shift
        if !specimen.isIPv6 {
            Reference.put(&bytes, l3 + 10, 0)
            Reference.put(&bytes, l3 + 10, ~Reference.sum(bytes[l3..<l3 + Int(bytes[l3] & 15) * 4]) & 0xffff)
        }
        specimen.finish(&bytes, shift: change.shift)
        if change.shift == 50, Reference.word(bytes, 40) != 0 { Specimen.finishUDP(&bytes, ip: 14, udp: 34) }
    }

    private static func blank(_ bytes: inout [UInt8], _ specimen: Specimen, _ change: Change) {
        if !specimen.isIPv6 { Reference.put(&bytes, specimen.l3 + change.shift + 10, 0) }
    }
}
