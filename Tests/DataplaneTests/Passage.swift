import DPDK
import Testing
import Wire
@testable import Dataplane

/// Case counts by dimension, and what was wrong: collected, so that a planted bug can be asked for.
final class Report {
    private(set) var counts: [String: [String: Int]] = [:]
    private(set) var failures: [String] = []
    private(set) var cases = 0

    func count(_ values: (dimension: String, value: String)...) {
        cases += 1
        for (dimension, value) in values { counts[dimension, default: [:]][value, default: 0] += 1 }
    }

    func expect(_ isRight: Bool, _ what: @autoclosure () -> String) { if !isRight { failures.append(what()) } }

    var summary: String {
        var lines = ["\(cases) cases"]
        for (dimension, values) in counts.sorted(by: { $0.key < $1.key }) {
            lines.append("  \(dimension): " + values.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        }
        return lines.joined(separator: "\n")
    }
}

/// Packets through the real loop: in by one port, out by the other.
enum Passage {
    struct Peer: Sendable {
        let name: String
        let takes: TransmitCapabilities
        var isFull = false, reseeds = false
        var mtu = 65_535
    }

    static let peers = [
        Peer(name: "tap", takes: .everything),
        Peer(name: "tap that reseeds", takes: .everything, reseeds: true),
        Peer(name: "vhost", takes: TransmitCapabilities(known: true, tcp4: true, tcp6: true)),
        Peer(name: "checksums only", takes: TransmitCapabilities(known: true)),
        Peer(name: "TSO4 only", takes: TransmitCapabilities(known: true, tcp4: true)),
        Peer(name: "device that seeds anew", takes: TransmitCapabilities(known: true, tcp4: true, tcp6: true, extensions: false)),
        Peer(name: "takes nothing", takes: .nothing),
        Peer(name: "deliver = full", takes: .everything, isFull: true, reseeds: true),
    ]

    struct Departure { let bytes: [UInt8]; let state: ChecksumState }

    struct Outcome {
        var departures: [Departure] = []
        var drops: [DropReason] = []
        var full: [ChecksumCounters.Cause] = []
        /// Somebody else's view of the bytes afterwards.
        var other: [UInt8]?
        var isBalanced = true
    }

    static func run(_ frame: [UInt8], _ state: ChecksumState, to peer: Peer, policy: ReceivePolicy = .device, splits: [Int] = [],
                    isShared: Bool = false) -> Outcome {
        let missing = PacketBench.shared.missing
        var outcome = run(PacketBench.shared.packet(frame, state, splits: splits), to: peer, policy: policy, isShared: isShared)
        if PacketBench.shared.missing != missing { outcome.isBalanced = false }
        return outcome
    }

    /// The packet has its state. Whether its buffers come back is the caller's to see.
    static func run(_ packet: consuming Packet, to peer: Peer, policy: ReceivePolicy = .device, isShared: Bool = false) -> Outcome {
        let bench = PacketBench.shared, counters = TestCounters()
        var outcome = Outcome()
        do {
            let queues = UnsafeMutablePointer<MemoryQueue>.allocate(capacity: 2)
            let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: 2)
            for number in 0..<2 {
                unsafe (queues + number).initialize(to: MemoryQueue(capacity: number == 0 ? 1 : 256, capabilities: peer.takes))
                var queue = unsafe PortQueue(queues + number)
                queue.policy = policy
                var slot = PortSlot(queue: queue, index: 1, delivery: .init(isFull: peer.isFull, reseedsVerified: peer.reseeds, mtu: peer.mtu),
                                    counters: counters.port(number), chain: [])
                slot.destination = 1 - number
                unsafe slots.initializeElement(at: number, to: slot)
            }
            defer { unsafe queues.deinitialize(count: 2).deallocate() }
            var lcore = unsafe Lcore(slots: slots, memory: bench.memory, counters: counters.lcore, checksums: counters.checksums)
            let other = isShared ? packet.clone(bench.small.allocator) : nil
            unsafe queues[0].arrivals.append(packet)
            lcore.poll()
            for index in 0..<(unsafe queues[1].departures.count) {
                unsafe outcome.departures.append(Departure(bytes: queues[1].departures[index].bytes, state: queues[1].departures[index].state))
            }
            if let other { outcome.other = other.bytes }
            var dropped: UInt64 = 0
            for reason in DropReason.allCases {
                let count = counters.port(0).drops(reason) + counters.port(1).drops(reason)
                if count > 0 { outcome.drops.append(reason) }
                dropped += count
            }
            for cause in ChecksumCounters.Cause.allCases { outcome.full += [ChecksumCounters.Cause](repeating: cause, count: Int(counters.full(cause))) }
            let created = counters.port(0).value(.created) + counters.port(1).value(.created)
            outcome.isBalanced = 1 + created == UInt64(outcome.departures.count) + dropped
        }
        return outcome
    }

    /// What a receiver makes of a departure.
    static func normal(_ departure: Departure) -> [UInt8] {
        guard departure.state.isPartial else { return departure.bytes }
        return Reference.completed(departure.bytes, start: Int(departure.state.start), offset: Int(departure.state.offset))
    }
}
