import DPDK
import EBPF
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// The real loop over two ports made of arrays.
    @Suite struct LcoreTests {
        /// Two slots joined by a wire, and the memory ports behind them.
        private struct Pair: ~Copyable {
            let queues: UnsafeMutablePointer<MemoryQueue>
            let counters = TestCounters()
            var lcore: Lcore

            init(_ takes: TransmitCapabilities, destination: (Int, Int) = (1, 0), capacity: Int = 256) {
                let bench = PacketBench.shared
                unsafe queues = .allocate(capacity: 2)
                let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: 2)
                for number in 0..<2 {
                    unsafe (queues + number).initialize(to: MemoryQueue(capacity: capacity, capabilities: takes))
                    var slot = unsafe PortSlot(queue: PortQueue(queues + number), index: UInt32(number + 1),
                                               delivery: .init(isFull: false, reseedsVerified: false),
                                               counters: counters.port(number), chain: [])
                    slot.destination = number == 0 ? destination.0 : destination.1
                    unsafe slots.initializeElement(at: number, to: slot)
                }
                unsafe lcore = Lcore(slots: slots, memory: bench.memory, counters: counters.lcore, checksums: counters.checksums)
            }

            deinit { unsafe queues.deinitialize(count: 2).deallocate() }

            func arrive(_ port: Int, _ frame: [UInt8], _ state: ChecksumState) {
                unsafe queues[port].arrivals.append(PacketBench.shared.packet(frame, state))
            }

            func departed(_ port: Int) -> Int { unsafe queues[port].departures.count }
        }

        private func sum(_ counters: TestCounters, _ counter: PortCounters.Counter) -> UInt64 {
            counters.port(0).value(counter) + counters.port(1).value(counter)
        }

        private func drops(_ counters: TestCounters) -> UInt64 {
            DropReason.allCases.reduce(0) { $0 + counters.port(0).drops($1) + counters.port(1).drops($1) }
        }

        @Test func carriesBothWaysInOrder() {
            let missing = PacketBench.shared.missing
            do {
                var pair = Pair(.everything)
                let frames = (0..<100).map { Reference.frame($0 % 2 == 0 ? .tcp4 : .udp6, payload: $0) }
                for frame in frames {
                    pair.arrive(0, frame, .none)
                    pair.arrive(1, frame, .bad)
                }
                for _ in 0..<4 { pair.lcore.poll() }
                for port in 0..<2 {
                    #expect(pair.departed(port) == 100)
                    for (number, frame) in frames.enumerated() {
                        unsafe #expect(pair.queues[port].departures[number].bytes == frame)
                        unsafe #expect(pair.queues[port].departures[number].state == (port == 0 ? .bad : .none))
                    }
                }
                #expect(pair.counters.lcore.value(.polls) == 4)
                #expect(pair.counters.lcore.value(.packets) == 200)
            }
            #expect(PacketBench.shared.missing == missing)
        }

        /// received + created = transmitted + dropped, with cuts, full rings and packets that cannot leave.
        @Test func nothingIsLostUncounted() {
            let missing = PacketBench.shared.missing
            do {
                var pair = Pair(.nothing, capacity: 70)
                var superframe = Reference.frame(.tcp4, payload: 9000)
                Reference.unfinish(&superframe)
                let state = ChecksumState.known(start: 34, offset: 16).superframe(.tcp4, segmentSize: 1448, congestion: false)
                for number in 0..<60 {
                    pair.arrive(0, superframe, number % 3 == 0 ? state.forgotten : state)
                    pair.arrive(1, Reference.frame(.udp4, payload: 10), .none)
                }
                for _ in 0..<3 { pair.lcore.poll() }
                let counters = pair.counters
                #expect(sum(counters, .receivedPackets) == 120)
                #expect(sum(counters, .created) == 40 * 6)
                #expect(counters.port(1).drops(.cannotSegment) == 20)
                #expect(counters.port(1).drops(.transmitFull) == 40 * 7 - 70)
                #expect(sum(counters, .receivedPackets) + sum(counters, .created) == sum(counters, .transmittedPackets) + drops(counters))
                #expect(UInt64(pair.departed(0) + pair.departed(1)) == sum(counters, .transmittedPackets))
            }
            #expect(PacketBench.shared.missing == missing)
        }

        @Test func aPortWithoutWireDropsWithAReason() {
            var pair = Pair(.everything, destination: (-1, 0))
            pair.arrive(0, Reference.frame(.tcp4, payload: 1), .none)
            pair.lcore.poll()
            #expect(pair.counters.port(0).drops(.noDestination) == 1)
            #expect(pair.departed(1) == 0)
        }

        @Test func statesAreCountedOnBothSides() {
            var pair = Pair(.everything)
            var frame = Reference.frame(.tcp4, payload: 5)
            pair.arrive(0, frame, .unnecessary(start: 34, offset: 16))
            Reference.unfinish(&frame)
            pair.arrive(0, frame, .known(start: 34, offset: 16))
            pair.arrive(0, frame, .opaque(start: 34, offset: 16))
            pair.arrive(0, frame, .bad)
            pair.lcore.poll()
            for name in ChecksumCounters.Name.allCases {
                let expected: UInt64 = switch name { case .none: 0; case .bad, .unnecessary: 1; case .partial: 2 }
                #expect(pair.counters.checksums.received(name) == expected)
                #expect(pair.counters.checksums.transmitted(name) == expected)
            }
        }
    }
}
