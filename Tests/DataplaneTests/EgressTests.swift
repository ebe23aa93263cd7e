import DPDK
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// Contract section 6: every state and kind of packet leaving by every kind of port.
    @Suite struct EgressTests {
        struct Peer: Sendable, CustomTestStringConvertible {
            let testDescription: String
            let takes: TransmitCapabilities
            var delivery = PortSlot.Delivery(isFull: false, reseedsVerified: false)
        }

        static let peers = [
            Peer(testDescription: "takes everything", takes: .everything),
            Peer(testDescription: "takes everything, reseeds", takes: .everything, delivery: .init(isFull: false, reseedsVerified: true)),
            Peer(testDescription: "no opaque", takes: TransmitCapabilities(known: true, tcp4: true, tcp6: true)),
            Peer(testDescription: "checksums only", takes: TransmitCapabilities(known: true)),
            Peer(testDescription: "TSO4 only", takes: TransmitCapabilities(known: true, tcp4: true)),
            Peer(testDescription: "nothing", takes: .nothing),
            Peer(testDescription: "deliver = full", takes: .everything, delivery: .init(isFull: true, reseedsVerified: true)),
        ]

        struct Departure { let bytes: [UInt8]; let state: ChecksumState }

        /// Sends one packet through a slot over a memory port.
        private func send(_ frame: [UInt8], _ state: ChecksumState, to peer: Peer, _ counters: TestCounters,
                          split: Int? = nil) -> [Departure] {
            let bench = PacketBench.shared
            let missing = bench.missing
            defer { #expect(bench.missing == missing, "every buffer is back") }
            let queue = UnsafeMutablePointer<MemoryQueue>.allocate(capacity: 1)
            unsafe queue.initialize(to: MemoryQueue(capacity: 128, capabilities: peer.takes))
            defer { unsafe queue.deinitialize(count: 1).deallocate() }
            var slot = unsafe PortSlot(queue: PortQueue(queue), index: 1, delivery: peer.delivery, counters: counters.port(0), chain: [])
            slot.refreshCapabilities()
            let egress = Egress(memory: bench.memory, checksums: counters.checksums)
            egress.send(bench.packet(frame, state, split: split), by: &slot)
            slot.flush(counters.checksums)
            var departures: [Departure] = []
            for index in 0..<(unsafe queue.pointee.departures.count) {
                departures.append(unsafe Departure(bytes: queue.pointee.departures[index].bytes, state: queue.pointee.departures[index].state))
            }
            return departures
        }

        static func place(_ frame: [UInt8]) -> (start: UInt16, offset: UInt16) {
            let place = Reference.transport(frame, at: Reference.l3(frame))
            return (UInt16(place.l4), place.proto == 17 ? 6 : 16)
        }

        /// What a receiver makes of it: normal form, one finished packet.
        private func normal(_ departure: Departure) -> [UInt8] {
            guard departure.state.isPartial else { return departure.bytes }
            return Reference.completed(departure.bytes, start: Int(departure.state.start), offset: Int(departure.state.offset))
        }

        @Test(arguments: Reference.Kind.allCases, peers) func knownPartial(_ kind: Reference.Kind, _ peer: Peer) {
            for tags in 0...2 {
                for padding in [0, 6] {
                    let finished = Reference.frame(kind, payload: 77, tags: tags, padding: padding)
                    var frame = finished
                    Reference.unfinish(&frame)
                    let place = Self.place(frame), counters = TestCounters()
                    let sent = send(frame, .known(start: place.start, offset: place.offset), to: peer, counters)
                    #expect(sent.count == 1)
                    let mayStay = peer.takes.known && !peer.delivery.isFull && padding == 0
                    #expect(sent[0].state.isPartial == mayStay, "partial where the port can say it, and only there")
                    #expect(normal(sent[0]) == finished)
                    #expect(counters.full(.egress) == (mayStay ? 0 : 1))
                    #expect(counters.fullTotal == counters.full(.egress))
                }
            }
        }

        @Test(arguments: peers) func opaque(_ peer: Peer) {
            // GRE-like: a checksum at an unusual place, seed 0.
            var frame = Reference.frame(.tcp4, payload: 64)
            Reference.put(&frame, 70, 0)
            let counters = TestCounters()
            let sent = send(frame, .opaque(start: 60, offset: 10), to: peer, counters)
            let mayStay = peer.takes.opaque && !peer.delivery.isFull
            #expect(sent.count == 1)
            #expect(sent[0].state == (mayStay ? .opaque(start: 60, offset: 10) : .none))
            #expect(normal(sent[0]) == Reference.completed(frame, start: 60, offset: 10))
            #expect(counters.full(.egress) == (mayStay ? 0 : 1))
        }

        @Test(arguments: Reference.Kind.allCases, peers) func finished(_ kind: Reference.Kind, _ peer: Peer) {
            let frame = Reference.frame(kind, payload: 77)
            let place = Self.place(frame), counters = TestCounters()
            for state in [ChecksumState.none, .bad] {
                let sent = send(frame, state, to: peer, counters)
                #expect(sent.map(\.bytes) == [frame] && sent.map(\.state) == [state], "untrusted bytes stand")
            }
            let sent = send(frame, .unnecessary(start: place.start, offset: place.offset), to: peer, counters)
            #expect(sent.count == 1 && normal(sent[0]) == frame)
            let reseeds = peer.delivery.reseedsVerified && !peer.delivery.isFull
            #expect(sent[0].state.kind == (reseeds ? .known : .unnecessary))
            #expect(counters.fullTotal == 0)
            #expect(counters.checksums.value(.reseeded) == (reseeds ? 1 : 0))
        }

        /// A UDP packet without checksum has none to reseed.
        @Test func verifiedWithoutChecksumIsNotReseeded() {
            var frame = Reference.frame(.udp4, payload: 20)
            Reference.put(&frame, 40, 0)
            let sent = send(frame, .unnecessary(start: 34, offset: 6), to: Self.peers[1], TestCounters())
            #expect(sent[0].bytes == frame)
        }

        @Test(arguments: [Reference.Kind.tcp4, .tcp6], peers) func superframe(_ kind: Reference.Kind, _ peer: Peer) {
            for (payload, size, tags, options) in [(10_000, 1448, 0, 0), (1449, 1448, 1, 0), (40_000, 1000, 2, 1), (3000, 1501, 0, 2), (65_000, 1448, 0, 0)] {
                let options = kind == .tcp4 ? options : 0
                var frame = Reference.frame(kind, payload: payload, tags: tags, options: options)
                Reference.unfinish(&frame)
                let place = Self.place(frame), counters = TestCounters()
                let state = ChecksumState.known(start: place.start, offset: place.offset)
                    .superframe(kind == .tcp4 ? .tcp4 : .tcp6, segmentSize: UInt16(size), congestion: true)
                let sent = send(frame, state, to: peer, counters)
                let takes = !peer.delivery.isFull && peer.takes.known && (kind == .tcp4 ? peer.takes.tcp4 : peer.takes.tcp6)
                if takes {
                    #expect(sent.count == 1 && sent[0].bytes == frame && sent[0].state == state)
                    continue
                }
                checkSegments(sent, of: frame, size: size)
                let isFinished = peer.delivery.isFull || !peer.takes.known
                #expect(sent.allSatisfy { $0.state.isPartial != isFinished && !$0.state.isSuperframe })
                #expect(counters.full(.segment) == (isFinished ? UInt64(sent.count) : 0))
                #expect(counters.fullTotal == counters.full(.segment))
                #expect(counters.port(0).value(.created) == UInt64(sent.count - 1))
            }
        }

        /// RFC 9293: the byte stream, the sequence numbers and the flags; every checksum right.
        private func checkSegments(_ sent: [Departure], of frame: [UInt8], size: Int) {
            let l3 = Reference.l3(frame), l4 = Reference.transport(frame, at: l3).l4
            let header = l4 + 20
            #expect(sent.count == (frame.count - header + size - 1) / size)
            var payload: [UInt8] = []
            for (number, departure) in sent.enumerated() {
                let bytes = normal(departure)
                #expect(Reference.isRight(bytes, at: l3))
                let place = Reference.transport(bytes, at: l3)
                #expect(place.l4 + place.length == bytes.count, "the length field is the segment's own")
                let sequence = Reference.word(bytes, l4 + 4) << 16 | Reference.word(bytes, l4 + 6)
                let first = Reference.word(frame, l4 + 4) << 16 | Reference.word(frame, l4 + 6)
                #expect(sequence == first + payload.count)
                let isLast = number == sent.count - 1
                // The frame has CWR, ACK and PSH set: 0x98.
                #expect(bytes[l4 + 13] == 0x10 | (isLast ? 0x08 : 0) | (number == 0 ? 0x80 : 0))
                if bytes[l3] >> 4 == 4 {
                    #expect(Reference.isIPv4HeaderRight(bytes, at: l3))
                    #expect(Reference.word(bytes, l3 + 4) == (Reference.word(frame, l3 + 4) + number) & 0xffff)
                }
                #expect(Array(bytes[..<l3]) == Array(frame[..<l3]))
                #expect(bytes.count - header <= size)
                payload += bytes[header...]
            }
            #expect(payload == Array(frame[header...]))
        }

        /// Cutting mends no IPv4 header checksum that was wrong before.
        @Test func segmentationDoesNotLaunder() {
            var frame = Reference.frame(.tcp4, payload: 5000)
            Reference.unfinish(&frame)
            Reference.put(&frame, 24, Reference.word(frame, 24) ^ 0x0101)
            let state = ChecksumState.known(start: 34, offset: 16).superframe(.tcp4, segmentSize: 1448, congestion: false)
            for departure in send(frame, state, to: Self.peers[5], TestCounters()) {
                #expect(!Reference.isIPv4HeaderRight(departure.bytes, at: 14))
            }
        }

        @Test(arguments: [ChecksumState.none, .bad]) func untrustedSuperframe(_ state: ChecksumState) {
            let counters = TestCounters()
            let superframe = state.superframe(.tcp4, segmentSize: 1448, congestion: false)
            #expect(send(Reference.frame(.tcp4, payload: 5000), superframe, to: Self.peers[0], counters).isEmpty)
            #expect(counters.port(0).drops(.cannotSegment) == 1)
        }

        /// An odd split at each boundary: sums and copies cross segments.
        @Test(arguments: [15, 34, 35, 54, 55, 100, 101, 1501]) func everySplit(_ split: Int) {
            let finished = Reference.frame(.udp4, payload: 1999)
            var frame = finished
            Reference.unfinish(&frame)
            let counters = TestCounters()
            let sent = send(frame, .known(start: 34, offset: 6), to: Self.peers[5], counters, split: split)
            if split >= 42 { #expect(sent.map(\.bytes) == [finished]) }
            // Headers in two segments are not parsed, so it is completed literally: the same bytes here.
            else { #expect(sent.map(\.bytes) == [finished]) }
            guard split >= 54 else { return }
            var superframe = Reference.frame(.tcp4, payload: 6001)
            Reference.unfinish(&superframe)
            let state = ChecksumState.known(start: 34, offset: 16).superframe(.tcp4, segmentSize: 1449, congestion: true)
            checkSegments(send(superframe, state, to: Self.peers[5], TestCounters(), split: split), of: superframe, size: 1449)
        }

        /// RFC 768: a computed UDP checksum of zero is sent as all ones.
        @Test func zeroIsSentAsOnes() {
            var frame = Reference.frame(.udp4, payload: 2)
            // Choose the payload so that the checksum comes out as zero.
            Reference.put(&frame, 42, 0)
            Reference.put(&frame, 40, 0)
            let place = Reference.transport(frame, at: 14)
            let rest = Reference.fold(place.pseudo + Reference.sum(frame[34..<44]))
            Reference.put(&frame, 42, ~rest & 0xffff)
            Reference.unfinish(&frame)
            let sent = send(frame, .known(start: 34, offset: 6), to: Self.peers[5], TestCounters())
            #expect(Reference.word(sent[0].bytes, 40) == 0xffff)
        }
    }
}
