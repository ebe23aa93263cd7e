import CDPDK
import CLinux
import Wire
@testable import DPDK
@testable import Dataplane

/// Packets that lie: input to drop reason or "carried as it is". Every segment lies against a page that faults, and what
/// is carried goes through the real loop to every kind of port.
enum BadPackets {
    /// What a peer says about a packet.
    enum Claim: Sendable {
        /// A tap's virtio header.
        case virtio(flags: Int, gso: Int, size: Int, start: Int, offset: Int)
        /// mbuf flags of the vhost library; `segment` where a superframe.
        case flags(UInt64, segment: Int)

        static let nothing = Claim.virtio(flags: 0, gso: 0, size: 0, start: 0, offset: 0)
        static let verified = Claim.virtio(flags: 2, gso: 0, size: 0, start: 0, offset: 0)
        static func unfinished(_ start: Int, _ offset: Int) -> Claim { .virtio(flags: 1, gso: 0, size: 0, start: start, offset: offset) }
        static func superframe(_ gso: Int, _ size: Int, _ start: Int, _ offset: Int) -> Claim {
            .virtio(flags: 1, gso: gso, size: size, start: start, offset: offset)
        }
    }

    enum Answer: Equatable, Sendable {
        case dropped(DropReason)
        /// With its bytes as they came, or completed literally where its state asks for it and the receiver does not.
        case carried(ChecksumState)
    }

    struct Row: Sendable {
        let name: String
        let frame: [UInt8]
        var splits: [Int] = []
        let claim: Claim
        let answer: Answer
    }

    enum Arrival: ~Copyable {
        case packet(Packet)
        case dropped(DropReason)
    }

    static func table(_ report: Report) {
        for row in rows {
            for edge in GuardedMemory.Edge.allCases { check(row, edge, report) }
        }
    }

    /// Arrival alone, then all the way to every kind of port.
    private static func check(_ row: Row, _ edge: GuardedMemory.Edge, _ report: Report) {
        let memory = GuardedMemory.shared, bench = PacketBench.shared
        let missing = memory.missing + bench.missing
        for peer in Passage.peers {
            let counters = TestCounters()
            let kind = switch row.answer { case .dropped(let reason): "dropped: \(reason.name)"; case .carried(let state): "carried: \(state.kind)" }
            report.count(("bad packet", String(row.name.prefix { $0 != "," })), ("answer", kind), ("leaving", peer.name), ("edge", "\(edge)"),
                         ("split", row.splits.isEmpty ? "none" : row.splits.count > 8 ? "many" : "some"))
            let state: ChecksumState, outcome: Passage.Outcome
            switch receive(row, edge, counters) {
            case .dropped(let reason):
                report.expect(row.answer == .dropped(reason), "\(row.name): dropped \(reason), not \(row.answer)")
                continue
            case .packet(let packet):
                state = packet.state
                guard row.answer == .carried(state) else {
                    report.expect(false, "\(row.name): carried as \(state.kind) \(state.start) \(state.offset) \(state.segmentation), not \(row.answer)")
                    continue
                }
                outcome = Passage.run(packet, to: peer)
            }
            report.expect(outcome.isBalanced, "\(row.name) to \(peer.name): unbalanced")
            guard outcome.departures.count == 1, !state.isSuperframe else {
                report.expect(state.isSuperframe, "\(row.name) to \(peer.name): \(outcome.departures.count) left, \(outcome.drops)")
                continue
            }
            let bytes = Passage.normal(outcome.departures[0])
            let expected = state.isPartial ? Reference.completed(row.frame, start: Int(state.start), offset: Int(state.offset)) : row.frame
            report.expect(bytes == expected, "\(row.name) to \(peer.name): bytes")
            report.expect(state.isTrusted || !outcome.departures[0].state.isTrusted, "\(row.name) to \(peer.name): laundered")
        }
        report.expect(memory.missing + bench.missing == missing, "\(row.name): buffers are missing")
    }

    /// As a tap's queue and a guest's do it.
    static func receive(_ row: Row, _ edge: GuardedMemory.Edge, _ counters: TestCounters) -> Arrival {
        let packet = GuardedMemory.shared.packet(row.frame, splits: row.splits, edge: edge)
        switch row.claim {
        case .virtio(let flags, let gso, let size, let start, let offset):
            var header = apus_vnet_header()
            header.flags = UInt8(flags)
            header.gso_type = UInt8(gso)
            header.gso_size = UInt16(size)
            header.csum_start = UInt16(start)
            header.csum_offset = UInt16(offset)
            switch StateMapping.arrival(of: packet, header) {
            case .drop(let reason): return .dropped(reason)
            case .state(let state): packet.state = state
            }
            ReceivePolicy.device.settle(packet, counters.checksums)
            return .packet(packet)
        case .flags(let flags, let segment):
            unsafe apus_mbuf_set_offload(packet.mbuf, flags, 0, 0, 0, UInt16(segment))
            guard let packet = Burst.accept(packet, .virtio, counters.port(0), counters.checksums) else {
                return .dropped(DropReason.allCases.first { counters.port(0).drops($0) > 0 }!)
            }
            ReceivePolicy.device.settle(packet, counters.checksums)
            return .packet(packet)
        }
    }
}
