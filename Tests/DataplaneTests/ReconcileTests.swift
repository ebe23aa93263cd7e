import DPDK
import EBPF
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// Contract section 5, row by row: arrival, program, what must come out.
    @Suite struct ReconcileTests {
        enum Outcome: Equatable { case known, opaque, unnecessary, none }

        struct Row: Sendable, CustomTestStringConvertible {
            let name: String
            let kind: Reference.Kind
            var tags = 0
            let program: @Sendable (inout FakeProgram.View) -> Void
            let partial: Outcome
            let verified: Outcome
            /// Causes of full sums that are allowed, for a verified arrival.
            var mayRecompute = false
            /// Where the named IP header stands afterwards; nil: it does not matter, or it is gone.
            var l3: Int? = 14
            var testDescription: String { name }
        }

        static func setPort(_ view: inout FakeProgram.View, l4: Int) { view.store16(l4, 0x2222) }

        /// Port rewritten and the field kept by RFC 1624, as programs do.
        static func maintain(_ view: inout FakeProgram.View, l4: Int, field: Int, port: Int = 0x2222) {
            let old = Reference.word(view.bytes, l4), check = Reference.word(view.bytes, field)
            view.store16(l4, port)
            view.store16(field, ~Reference.fold((~check & 0xffff) + (~old & 0xffff) + port) & 0xffff)
        }

        static let rows: [Row] = [
            Row(name: "nothing", kind: .tcp4, program: { _ in }, partial: .known, verified: .unnecessary),
            Row(name: "MAC addresses", kind: .tcp4, program: { $0.store(0, [1, 2, 3, 4, 5, 6]); $0.store(6, [6, 5, 4, 3, 2, 1]) }, partial: .known, verified: .unnecessary),
            Row(name: "TTL without its checksum", kind: .tcp4, program: { $0.store(22, [63]) }, partial: .known, verified: .unnecessary),
            Row(name: "source address", kind: .tcp4, program: { $0.store(26, [172, 16, 9, 9]) }, partial: .known, verified: .unnecessary),
            Row(name: "destination address, UDP", kind: .udp4, program: { $0.store(30, [172, 16, 9, 9]) }, partial: .known, verified: .unnecessary),
            Row(name: "address of IPv6", kind: .tcp6, program: { $0.store(22, [0xfe, 0x80]) }, partial: .known, verified: .unnecessary),
            Row(name: "port", kind: .tcp4, program: { setPort(&$0, l4: 34) }, partial: .known, verified: .unnecessary),
            Row(name: "port behind a tag", kind: .tcp4, tags: 1, program: { setPort(&$0, l4: 38) }, partial: .known, verified: .unnecessary, l3: 18),
            Row(name: "port, maintained", kind: .tcp4, program: { maintain(&$0, l4: 34, field: 50) }, partial: .known, verified: .unnecessary),
            Row(name: "port of UDP, maintained", kind: .udp4, program: { maintain(&$0, l4: 34, field: 40) }, partial: .known, verified: .unnecessary),
            Row(name: "field alone", kind: .tcp4, program: { $0.store16(50, 0x1234) }, partial: .known, verified: .unnecessary),
            Row(name: "UDP field set to zero", kind: .udp4, program: { $0.store16(40, 0) }, partial: .none, verified: .none, l3: nil),
            Row(name: "UDP field of IPv6 set to zero", kind: .udp6, program: { $0.store16(60, 0) }, partial: .known, verified: .unnecessary),
            Row(name: "payload", kind: .tcp4, program: { $0.store(60, [9, 9, 9]) }, partial: .known, verified: .unnecessary),
            Row(name: "payload past the shadow", kind: .tcp4, program: { $0.store(400, [9, 9, 9]) }, partial: .known, verified: .unnecessary, mayRecompute: true),
            Row(name: "protocol changed", kind: .udp4, program: { $0.store(23, [1]) }, partial: .none, verified: .none, l3: nil),
            Row(name: "EtherType changed", kind: .tcp4, program: { $0.store(12, [0x88, 0xb5]) }, partial: .opaque, verified: .unnecessary),
            Row(name: "VLAN pushed", kind: .tcp4, program: { view in
                view.adjustHead(-4)
                view.store(0, Array(view.bytes[4..<16]))
                view.store(12, [0x81, 0, 0, 7])
            }, partial: .known, verified: .unnecessary, l3: 18),
            Row(name: "VLAN popped", kind: .udp4, tags: 1, program: { view in
                view.store(4, Array(view.bytes[0..<12]))
                view.adjustHead(4)
            }, partial: .known, verified: .unnecessary, l3: 14),
            Row(name: "wrapped in IPv4", kind: .tcp4, program: { encapsulate(&$0) }, partial: .opaque, verified: .unnecessary, l3: 34),
            Row(name: "UDP wrapped in UDP", kind: .udp4, program: { encapsulate(&$0, udp: true) }, partial: .opaque, verified: .unnecessary, l3: 42),
            Row(name: "wrapped, inner address changed", kind: .tcp4, program: { view in
                view.store(30, [10, 9, 9, 9])
                encapsulate(&view)
            }, partial: .opaque, verified: .unnecessary, l3: 34),
            Row(name: "transport header cut off", kind: .tcp4, program: { view in
                view.adjustHead(20)
                view.store(0, [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 8, 0])
            }, partial: .none, verified: .none, l3: nil),
            Row(name: "length past the frame", kind: .tcp4, program: { $0.store16(16, 60_000) }, partial: .none, verified: .none, l3: nil),
            Row(name: "tail cut", kind: .tcp4, program: { view in
                view.adjustTail(-100)
                view.store16(16, view.bytes.count - 14)
            }, partial: .known, verified: .unnecessary, mayRecompute: true),
            Row(name: "tail cut and grown again", kind: .tcp4, program: { $0.adjustTail(-8); $0.adjustTail(8) }, partial: .known, verified: .unnecessary, mayRecompute: true),
            Row(name: "tail grown, not part of the datagram", kind: .tcp4, program: { $0.adjustTail(6) }, partial: .known, verified: .unnecessary, mayRecompute: true),
            Row(name: "IPv4 options inserted in front of TCP", kind: .tcp4, program: { view in
                view.adjustHead(-4)
                view.store(0, Array(view.bytes[4..<38]))
                view.store(34, [1, 1, 1, 0])
                view.store(14, [0x46])
                view.store16(16, Reference.word(view.bytes, 16) + 4)
            }, partial: .known, verified: .unnecessary),
            Row(name: "TCP moved back to make room", kind: .tcp4, program: { view in
                view.adjustTail(4)
                view.store(38, Array(view.bytes[34..<view.bytes.count - 4]))
                view.store(34, [1, 1, 1, 0])
                view.store(14, [0x46])
                view.store16(16, Reference.word(view.bytes, 16) + 4)
            }, partial: .known, verified: .unnecessary, mayRecompute: true),
        ]

        /// An outer IPv4 header (and UDP without checksum) in front of the packet's own.
        static func encapsulate(_ view: inout FakeProgram.View, udp: Bool = false) {
            let inner = view.bytes.count - 14
            let extra = udp ? 28 : 20
            view.adjustHead(-extra)
            view.store(0, [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 8, 0])
            view.store(14, [0x45, 0] + Reference.bytes16(inner + extra) + [0, 0, 0, 0, 64, udp ? 17 : 4, 0, 0, 192, 168, 0, 1, 192, 168, 0, 2])
            view.store16(24, ~Reference.sum(view.bytes[14..<34]) & 0xffff)
            if udp { view.store(34, [0x12, 0xb5, 0x12, 0xb5] + Reference.bytes16(inner + 8) + [0, 0]) }
        }

        private func outcome(_ state: ChecksumState) -> Outcome {
            switch state.kind {
            case .known: .known
            case .opaque: .opaque
            case .unnecessary: .unnecessary
            case .none, .bad: .none
            }
        }

        private func run(_ row: Row, _ frame: [UInt8], _ state: ChecksumState,
                         _ counters: TestCounters) -> (bytes: [UInt8], state: ChecksumState) {
            let packet = PacketBench.shared.packet(frame, state)
            var shadow = Shadow()
            shadow.take(packet)
            let effect = FakeProgram(run: row.program)(packet)
            Reconcile(counters: counters.checksums)(packet, effect, shadow)
            return (packet.bytes, packet.state)
        }

        private func place(_ frame: [UInt8]) -> (start: UInt16, offset: UInt16) {
            let place = Reference.transport(frame, at: Reference.l3(frame))
            return (UInt16(place.l4), place.proto == 17 ? 6 : 16)
        }

        @Test(arguments: rows) func partial(_ row: Row) {
            var frame = Reference.frame(row.kind, payload: 501, tags: row.tags)
            Reference.unfinish(&frame)
            let place = place(frame)
            let counters = TestCounters()
            let (bytes, state) = run(row, frame, .known(start: place.start, offset: place.offset), counters)
            #expect(outcome(state) == row.partial)
            #expect(counters.fullTotal == 0, "a partial packet never needs its bytes summed")
            guard state.isPartial, let l3 = row.l3 else { return }
            let final = Reference.completed(Array(bytes.prefix(sumEnd(bytes, l3))), start: Int(state.start), offset: Int(state.offset))
            #expect(Reference.isRight(final, at: l3))
            if bytes[l3] >> 4 == 4 { #expect(Reference.isIPv4HeaderRight(bytes, at: l3)) }
        }

        /// A receiver sums to the end of the frame: what stands behind the datagram is egress's business.
        private func sumEnd(_ bytes: [UInt8], _ l3: Int) -> Int {
            let place = Reference.transport(bytes, at: l3)
            return place.l4 + place.length
        }

        @Test(arguments: rows) func verified(_ row: Row) {
            let frame = Reference.frame(row.kind, payload: 501, tags: row.tags)
            let place = place(frame)
            let counters = TestCounters()
            let (bytes, state) = run(row, frame, .unnecessary(start: place.start, offset: place.offset), counters)
            #expect(outcome(state) == row.verified)
            if !row.mayRecompute { #expect(counters.fullTotal == 0) }
            #expect(counters.fullTotal == counters.full(.xdpWrite))
            guard state.kind == .unnecessary, let l3 = row.l3 else { return }
            #expect(Reference.isRight(bytes, at: l3))
            #expect(Int(state.field) == Reference.field(bytes, at: l3))
        }

        /// C3: whatever the program does, a packet that is not trusted keeps its L4 bytes and stays untrusted.
        @Test(arguments: rows, [ChecksumState.none, .bad]) func untrusted(_ row: Row, _ state: ChecksumState) {
            var frame = Reference.frame(row.kind, payload: 501, tags: row.tags)
            Reference.put(&frame, Reference.field(frame, at: Reference.l3(frame)), 0xdead)
            let counters = TestCounters()
            var expected = FakeProgram.View(frame)
            row.program(&expected)
            let (bytes, final) = run(row, frame, state, counters)
            #expect(final == state)
            #expect(counters.fullTotal == 0 && counters.checksums.value(.difference) == 0 && counters.checksums.value(.reseeded) == 0)
            var without = bytes, expectedWithout = expected.bytes
            let l3 = min(row.l3 ?? 14, bytes.count - 20)
            for at in l3 + 10...l3 + 11 { without[at] = 0; expectedWithout[at] = 0 }
            #expect(without == expectedWithout, "only an IPv4 header checksum may differ from what the program left")
        }

        /// C3 again: a difference keeps an old error, so a verified packet that in truth was wrong stays wrong by as much.
        @Test func differenceDoesNotLaunder() {
            var frame = Reference.frame(.tcp4, payload: 100)
            let right = Reference.word(frame, 50)
            Reference.put(&frame, 50, right ^ 0x0101)
            let counters = TestCounters()
            let row = Self.rows.first { $0.name == "port" }!
            let (bytes, _) = run(row, frame, .unnecessary(start: 34, offset: 16), counters)
            #expect(!Reference.isRight(bytes, at: 14))
        }

        /// A wrong IPv4 header checksum of the arrival stays wrong.
        @Test func ipv4HeaderIsNotLaundered() {
            var frame = Reference.frame(.tcp4, payload: 100)
            Reference.put(&frame, 24, Reference.word(frame, 24) ^ 0x0101)
            let row = Self.rows.first { $0.name == "TTL without its checksum" }!
            let counters = TestCounters()
            let (bytes, _) = run(row, frame, .none, counters)
            #expect(!Reference.isIPv4HeaderRight(bytes, at: 14))
            #expect(counters.checksums.value(.ipHeader) == 0)
        }

        /// An IPv4 header that is mended behind the program's own outer UDP checksum, which covers it.
        @Test(arguments: [Reference.Kind.tcp4, .udp4]) func innerHeaderMended(_ kind: Reference.Kind) {
            let row = Row(name: "TTL, then wrapped in UDP with a checksum", kind: kind, program: { view in
                view.store(22, [63])
                Self.encapsulate(&view, udp: true)
                var whole = view.bytes
                Reference.finish(&whole, 14)
                view.store16(40, Reference.word(whole, 40))
            }, partial: .opaque, verified: .unnecessary)
            let frame = Reference.frame(kind, payload: 501), place = place(frame)
            let counters = TestCounters()
            let (bytes, state) = run(row, frame, .unnecessary(start: place.start, offset: place.offset), counters)
            #expect(state.kind == .unnecessary)
            #expect(counters.checksums.value(.ipHeader) == 1 && counters.fullTotal == 0)
            #expect(Reference.isIPv4HeaderRight(bytes, at: 42) && Reference.isRight(bytes, at: 42))
            #expect(Reference.word(bytes, 40) != 0 && Reference.isRight(bytes, at: 14))
        }

        /// C5: what nothing cheaper is right for, and nothing else, is summed whole.
        @Test func causes() {
            let counters = TestCounters()
            let row = Self.rows.first { $0.name == "payload past the shadow" }!
            _ = run(row, Reference.frame(.tcp4, payload: 501), .unnecessary(start: 34, offset: 16), counters)
            #expect(counters.full(.xdpWrite) == 1)
            #expect(counters.checksums.value(.softwareFullBytes) == 521)
        }

        /// A superframe cut below one segment is none any more.
        @Test func shortenedSuperframe() {
            var frame = Reference.frame(.tcp4, payload: 3000)
            Reference.unfinish(&frame)
            let state = ChecksumState.known(start: 34, offset: 16).superframe(.tcp4, segmentSize: 1448, congestion: false)
            let counters = TestCounters()
            let row = Row(name: "cut", kind: .tcp4, program: { view in
                view.adjustTail(-2000)
                view.store16(16, view.bytes.count - 14)
            }, partial: .known, verified: .unnecessary)
            let (bytes, final) = run(row, frame, state, counters)
            #expect(final == .known(start: 34, offset: 16))
            #expect(Reference.isRight(Reference.completed(bytes, start: 34, offset: 16), at: 14))
        }
    }
}
