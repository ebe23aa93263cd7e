import CDPDK
import DPDK
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// Bursts that go the short way leave what the long way leaves: frames, their order, and every counter.
    ///
    /// The twin gets the same frames, each with a driver's flag that means nothing, which sends them the long way.
    @Suite struct PlainBurstTests {
        private struct Bench: ~Copyable {
            let isMarked: Bool
            let queues: UnsafeMutablePointer<MemoryQueue>
            let counters = TestCounters()
            let table = AddressTable(capacity: 64, portCount: 4, portLimit: 5, ageingSeconds: 300)
            let members: UnsafeMutableBufferPointer<Int>
            var lcore: Lcore

            init(isMarked: Bool, isBridge: Bool) {
                self.isMarked = isMarked
                unsafe queues = .allocate(capacity: 4)
                unsafe members = .allocate(capacity: 4)
                unsafe _ = members.initialize(from: 0..<4)
                let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: 4)
                for number in 0..<4 {
                    // One port's peer is slow, one takes small frames only, and one has a VLAN.
                    unsafe (queues + number).initialize(to: MemoryQueue(capacity: number == 1 ? 20 : 64, capabilities: .nothing))
                    var slot = unsafe PortSlot(queue: PortQueue(queues + number), index: UInt32(number + 1),
                                               delivery: .init(isFull: false, reseedsVerified: true, mtu: number == 2 ? 200 : 1500),
                                               counters: counters.port(number), chain: [])
                    if isBridge {
                        slot.bridge = unsafe BridgeMember(table: table, members: UnsafeBufferPointer(members), vlans: number == 3 ? .access(7) : .unaware)
                    } else {
                        slot.destination = number ^ 1
                    }
                    unsafe slots.initializeElement(at: number, to: slot)
                }
                unsafe lcore = Lcore(slots: slots, memory: PacketBench.shared.memory, counters: counters.lcore, checksums: counters.checksums)
            }

            deinit {
                unsafe queues.deinitialize(count: 4).deallocate()
                table.free()
                unsafe members.deallocate()
            }

            func arrive(_ port: Int, _ frame: [UInt8], _ state: ChecksumState) {
                let packet = PacketBench.shared.packet(frame, state)
                // Packets from the pool keep what the one before left.
                unsafe apus_mbuf_set_offload(packet.mbuf, isMarked ? apus_flag_tx_ipv4 : 0, 0, 0, 0, 0)
                unsafe queues[port].arrivals.append(packet)
            }

            mutating func departures() -> [[[UInt8]]] {
                lcore.poll()
                return (0..<4).map { port in
                    let frames = unsafe (0..<queues[port].departures.count).map { unsafe queues[port].departures[$0].bytes }
                    unsafe queues[port].departures.drop()
                    return frames
                }
            }
        }

        @Test(arguments: [true, false])
        func theTwinLeavesTheSame(isBridge: Bool) {
            let missing = PacketBench.shared.missing
            var generator = SystemRandomNumberGenerator()
            do {
                var short = Bench(isMarked: false, isBridge: isBridge), long = Bench(isMarked: true, isBridge: isBridge)
                for round in 0..<2000 {
                    for port in 0..<4 {
                        // Mostly trains: few addresses, which now and then are elsewhere than before, and few of them groups.
                        let isTrain = Int.random(in: 0..<3, using: &generator) > 0
                        var to = UInt8.random(in: 0..<8, using: &generator), from = UInt8(port * 2)
                        var payload = 20
                        for _ in 0..<Int.random(in: 0...(port == 1 ? 20 : 32), using: &generator) {
                            if !isTrain || Int.random(in: 0..<60, using: &generator) == 0 {
                                to = UInt8.random(in: 0..<8, using: &generator)
                                if Int.random(in: 0..<20, using: &generator) == 0 { from = UInt8.random(in: 0..<10, using: &generator) }
                                payload = Int.random(in: 0..<40, using: &generator) == 0 ? 1600 : Int.random(in: 20..<220, using: &generator)
                            }
                            var frame = Reference.frame(.udp4, payload: payload)
                            frame.replaceSubrange(0..<12, with: [2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from])
                            if Int.random(in: 0..<500, using: &generator) == 0 { frame[0] = 1 }
                            if Int.random(in: 0..<500, using: &generator) == 0 { frame[6] = 3 }
                            let state: ChecksumState = Int.random(in: 0..<200, using: &generator) == 0 ? .bad : .none
                            short.arrive(port, frame, state)
                            long.arrive(port, frame, state)
                        }
                    }
                    let left = short.departures(), expected = long.departures()
                    #expect(left == expected, "round \(round)")
                    #expect(short.counters.snapshot == long.counters.snapshot, "round \(round)")
                    if left != expected { return }
                }
                // Both ways were gone, and losses among them.
                #expect(short.counters.port(1).drops(.transmitFull) > 100)
                #expect(short.counters.port(2).drops(.largerThanMTU) > 10)
            }
            #expect(PacketBench.shared.missing == missing)
        }

        @Test func aSurveySaysWhatIsTrue() {
            let frames = [60, 1000, 64].map { Reference.frame(.udp4, payload: $0) }
            func survey(_ change: (borrowing Packet) -> Void) -> BurstSurvey {
                var queue = MemoryQueue(capacity: 8, capabilities: .nothing)
                for (number, frame) in frames.enumerated() {
                    let packet = PacketBench.shared.packet(frame, .none)
                    unsafe apus_mbuf_set_offload(packet.mbuf, 0, 0, 0, 0, 0)
                    if number == 1 { change(packet) }
                    queue.arrivals.append(packet)
                }
                var burst = Burst(capacity: 8)
                let counters = TestCounters()
                unsafe withUnsafeMutablePointer(to: &queue) { unsafe PortQueue($0).receive(into: &burst, counters.port(0), counters.checksums) }
                return burst.survey
            }
            let plain = survey { _ in }
            #expect(plain.isPlain && plain.bytes == frames.reduce(0) { $0 + $1.count } && plain.longestBound >= frames[1].count && plain.longestBound < 2 * frames[1].count)
            #expect(!survey { unsafe apus_mbuf_set_offload($0.mbuf, apus_flag_rx_l4_good, 0, 0, 0, 0) }.isPlain)
            #expect(!survey { $0.state = .bad }.isPlain)
            #expect(!survey { unsafe $0.setWindow(start: $0.data, count: 13) }.isPlain)
            let chained = survey { _ = $0.chain(PacketBench.shared.packet([1, 2, 3], .none)) }
            #expect(chained.isPlain && chained.bytes == plain.bytes + 3)
            #expect(!survey { packet in
                _ = packet.chain(PacketBench.shared.packet([1, 2, 3], .none))
                unsafe packet.setWindow(start: packet.data, count: 13)
            }.isPlain)
        }
    }
}
