import CDPDK
import DPDK
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// Three ports of a bridge, made of arrays, under the real loop. What arrives where, as bytes.
    @Suite struct BridgeTests {
        private struct Bench: ~Copyable {
            let count: Int
            let queues: UnsafeMutablePointer<MemoryQueue>
            let counters = TestCounters()
            let table: AddressTable
            let members: UnsafeMutableBufferPointer<Int>
            let trunk: UnsafeMutablePointer<UInt64>
            var lcore: Lcore

            init(_ vlans: [VLAN] = [.unaware, .unaware, .unaware], takes: TransmitCapabilities = .everything, capacity: Int = 64,
                 portLimit: Int = 8, addresses: Int = 64) {
                _ = PacketBench.shared      // without EAL there is no clock: a table would forget at once
                count = vlans.count
                unsafe queues = .allocate(capacity: count)
                unsafe members = .allocate(capacity: count)
                unsafe _ = members.initialize(from: 0..<count)
                unsafe trunk = .allocate(capacity: 64)
                unsafe trunk.initialize(repeating: 0, count: 64)
                unsafe trunk[0] = 1 << 10 | 1 << 20
                table = AddressTable(capacity: addresses, portCount: count, portLimit: portLimit, ageingSeconds: 300)
                let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: count)
                for number in 0..<count {
                    unsafe (queues + number).initialize(to: MemoryQueue(capacity: capacity, capabilities: takes))
                    var slot = unsafe PortSlot(queue: PortQueue(queues + number), index: UInt32(number + 1),
                                               delivery: .init(isFull: false, reseedsVerified: false),
                                               counters: counters.port(number), chain: [])
                    let membership: VLANMembership = switch vlans[number] {
                    case .unaware: .unaware
                    case .access(let id): .access(id)
                    case .trunk: unsafe .trunk(trunk)
                    }
                    slot.bridge = unsafe BridgeMember(table: table, members: UnsafeBufferPointer(members), vlans: membership)
                    unsafe slots.initializeElement(at: number, to: slot)
                }
                unsafe lcore = Lcore(slots: slots, memory: PacketBench.shared.memory, counters: counters.lcore, checksums: counters.checksums)
            }

            deinit {
                unsafe queues.deinitialize(count: count).deallocate()
                table.free()
                unsafe members.deallocate()
                unsafe trunk.deallocate()
            }

            func arrive(_ port: Int, _ frame: [UInt8], _ state: ChecksumState = .none) {
                unsafe queues[port].arrivals.append(PacketBench.shared.packet(frame, state))
            }

            /// What left by each port since the last time.
            mutating func departures() -> [[[UInt8]]] {
                lcore.poll()
                return (0..<count).map { port in
                    let frames = unsafe (0..<queues[port].departures.count).map { unsafe queues[port].departures[$0].bytes }
                    unsafe queues[port].departures.drop()
                    return frames
                }
            }

            func sum(_ counter: PortCounters.Counter) -> UInt64 { (0..<count).reduce(0) { $0 + counters.port($1).value(counter) } }
            func drops(_ port: Int, _ reason: DropReason) -> UInt64 { counters.port(port).drops(reason) }
            var drops: UInt64 { (0..<count).reduce(0) { sum, port in DropReason.allCases.reduce(sum) { $0 + drops(port, $1) } } }
            var isBalanced: Bool { sum(.receivedPackets) + sum(.created) == sum(.transmittedPackets) + drops }
        }

        enum VLAN { case unaware, access(UInt16), trunk }

        /// Addresses 02:00:00:00:00:N; ff is everybody.
        private func frame(to: UInt8, from: UInt8, tag: UInt16? = nil, payload: Int = 20) -> [UInt8] {
            var frame = Reference.frame(.tcp4, payload: payload)
            frame.replaceSubrange(0..<6, with: to == 0xff ? [UInt8](repeating: 0xff, count: 6) : [2, 0, 0, 0, 0, to])
            frame.replaceSubrange(6..<12, with: [2, 0, 0, 0, 0, from])
            if let tag { frame.insert(contentsOf: [0x81, 0, UInt8(tag >> 8), UInt8(tag & 0xff)], at: 12) }
            return frame
        }

        @Test func learnsAndSendsToOne() {
            let missing = PacketBench.shared.missing
            do {
                var bench = Bench()
                let first = frame(to: 2, from: 1), answer = frame(to: 1, from: 2), second = frame(to: 2, from: 1)
                bench.arrive(0, first)
                #expect(bench.departures() == [[], [first], [first]], "unknown: flooded")
                bench.arrive(1, answer)
                #expect(bench.departures() == [[answer], [], []])
                bench.arrive(0, second)
                #expect(bench.departures() == [[], [second], []])
                let group = frame(to: 0xff, from: 2)
                bench.arrive(1, group)
                #expect(bench.departures() == [[group], [], [group]], "not back to where it came from")
                #expect(bench.sum(.created) == 2)
                let isBalanced = bench.isBalanced
                #expect(isBalanced)
            }
            #expect(PacketBench.shared.missing == missing)
        }

        @Test func anAddressMovesAndNothingGoesBack() {
            var bench = Bench()
            bench.arrive(0, frame(to: 0xff, from: 1))
            _ = bench.departures()
            let toItself = frame(to: 1, from: 3)
            bench.arrive(0, toItself)
            #expect(bench.departures() == [[], [], []])
            #expect(bench.drops(0, .samePort) == 1)
            bench.arrive(2, frame(to: 0xff, from: 1))
            _ = bench.departures()
            bench.arrive(0, toItself)
            #expect(bench.departures() == [[], [], [toItself]], "it is heard at port 2 now")
            #expect(bench.table.count(ofPort: 0) == 1)
            #expect(bench.table.count(ofPort: 2) == 1)
        }

        @Test func addressesOfNoBridgeStop() {
            var bench = Bench()
            for last in UInt8(0)...0x10 {
                var bpdu = frame(to: 2, from: 1)
                bpdu.replaceSubrange(0..<6, with: [1, 0x80, 0xc2, 0, 0, last])
                bench.arrive(0, bpdu)
            }
            bench.arrive(0, frame(to: 2, from: 1).enumerated().map { $0.offset == 6 ? 3 : $0.element })
            #expect(bench.departures().map(\.count) == [0, 1, 1], "only 01-80-c2-00-00-10")
            #expect(bench.drops(0, .bridgeAddress) == 17)
            let isBalanced = bench.isBalanced
            #expect(isBalanced)
        }

        @Test func tagsComeAndGoWithTheirPorts() {
            // What arrives at which port (0 access 10, 1 access 20, 2 trunk 10 and 20), and what leaves by each.
            let plain = frame(to: 0xff, from: 1), ten = frame(to: 0xff, from: 1, tag: 10), twenty = frame(to: 0xff, from: 1, tag: 20)
            let priority = frame(to: 0xff, from: 1, tag: 0), thirty = frame(to: 0xff, from: 1, tag: 30)
            let table: [(port: Int, frame: [UInt8], leaves: [[[UInt8]]], dropped: Bool)] = [
                (0, plain, [[], [], [ten]], false),
                (1, plain, [[], [], [twenty]], false),
                (2, ten, [[plain], [], []], false),
                (2, twenty, [[], [plain], []], false),
                (0, priority, [[], [], [ten]], false),
                (0, ten, [[], [], []], true),
                (2, plain, [[], [], []], true),
                (2, priority, [[], [], []], true),
                (2, thirty, [[], [], []], true),
            ]
            for (number, row) in table.enumerated() {
                var bench = Bench([.access(10), .access(20), .trunk])
                bench.arrive(row.port, row.frame)
                #expect(bench.departures() == row.leaves, "row \(number)")
                #expect(bench.drops(row.port, .vlan) == (row.dropped ? 1 : 0), "row \(number)")
                let isBalanced = bench.isBalanced
                #expect(isBalanced)
            }
        }

        @Test func anAddressInTwoVLANsIsTwo() {
            var bench = Bench([.access(10), .access(20), .trunk])
            bench.arrive(0, frame(to: 0xff, from: 1))
            bench.arrive(1, frame(to: 0xff, from: 1))
            _ = bench.departures()
            bench.arrive(2, frame(to: 1, from: 2, tag: 20))
            #expect(bench.departures() == [[], [frame(to: 1, from: 2)], []])
        }

        /// A partial packet flooded to a port that takes it and to ports that do not: each copy right, the tag counted in.
        @Test func floodedChecksumsAreEachTheirOwn() {
            let missing = PacketBench.shared.missing
            do {
                for vlans in [[VLAN.unaware, .unaware, .unaware], [.access(10), .trunk, .access(10)]] {
                    for takes in [TransmitCapabilities.everything, .nothing] {
                        var bench = Bench(vlans, takes: takes)
                        var arrival = frame(to: 0xff, from: 1, payload: 700)
                        let finished = arrival
                        Reference.unfinish(&arrival)
                        bench.arrive(0, arrival, .known(start: 34, offset: 16))
                        bench.lcore.poll()
                        for port in 1...2 {
                            let isTagged = port == 1 && vlans.count == 3 && { if case .trunk = vlans[1] { true } else { false } }()
                            var expected = takes == .nothing ? finished : arrival
                            if isTagged { expected.insert(contentsOf: [0x81, 0, 0, 10], at: 12) }
                            unsafe #expect(bench.queues[port].departures[0].bytes == expected)
                            let state = unsafe bench.queues[port].departures[0].state
                            #expect(Int(state.start) == (isTagged ? 38 : 34))
                            #expect(state.isPartial == (takes == .everything))
                        }
                    }
                }
            }
            #expect(PacketBench.shared.missing == missing)
        }

        @Test func whatAFloodLosesIsItsSenders() {
            var bench = Bench(capacity: 4)
            for _ in 0..<2 {
                for _ in 0..<4 { bench.arrive(0, frame(to: 0xff, from: 1)) }
                bench.lcore.poll()
            }
            #expect(bench.drops(0, .transmitFull) == 8, "two ports with four places each got eight")
            #expect(bench.drops(1, .transmitFull) + bench.drops(2, .transmitFull) == 0)
            let isBalanced = bench.isBalanced
            #expect(isBalanced)
        }

        @Test func onePortCannotFillTheTable() {
            var bench = Bench(portLimit: 3)
            for source in UInt8(1)...6 { bench.arrive(0, frame(to: 0xff, from: source)) }
            _ = bench.departures()
            #expect(bench.table.count(ofPort: 0) == 3)
            #expect(bench.counters.port(0).value(.notLearned) == 3)
            bench.arrive(1, frame(to: 0xff, from: 9))
            _ = bench.departures()
            let toNinth = frame(to: 9, from: 1)
            bench.arrive(2, toNinth)
            #expect(bench.departures() == [[], [toNinth], []])
        }
    }

    @Suite struct AddressTableTests {
        init() { _ = PacketBench.shared }

        private func key(_ number: Int) -> AddressTable.Key { .init(address: UInt64(number) &* 0x1_0000_0101 & 0xffff_ffff_fffe, vlan: UInt16(number % 7)) }

        @Test func holdsWhatItPromises() {
            let table = AddressTable(capacity: 1000, portCount: 4, portLimit: 1000, ageingSeconds: 300)
            defer { table.free() }
            var learned = 0
            // What control reads is as old as the clock says.
            let now = AddressTable.tick(apus_cycles())
            for number in 1...1000 where table.learn(key(number), port: number % 4, now: now) { learned += 1 }
            #expect(learned >= 990, "two lines of four entries each, half full")
            for number in 1...1000 {
                let port = table.lookup(key(number), now: now)
                #expect(port == number % 4 || port == -1)
            }
            #expect((0..<4).reduce(0) { $0 + table.count(ofPort: $1) } == learned)
            #expect(table.entries(now: 5).count == learned)
        }

        @Test func forgetsInTime() {
            let table = AddressTable(capacity: 64, portCount: 2, portLimit: 64, ageingSeconds: 1)
            defer { table.free() }
            let second = AddressTable.tick(apusCyclesPerSecond)
            #expect(table.learn(key(1), port: 0, now: 10))
            #expect(table.learn(key(2), port: 1, now: 10))
            #expect(table.lookup(key(1), now: 10 + second) == 0)
            #expect(table.learn(key(2), port: 1, now: 10 + second), "refreshed")
            #expect(table.lookup(key(1), now: 12 + second) == -1)
            #expect(table.lookup(key(2), now: 12 + second) == 1)
            var cursor = 0
            repeat { cursor = table.sweep(from: cursor, now: 12 + second) } while cursor != 0
            #expect(table.count(ofPort: 0) == 0)
            #expect(table.count(ofPort: 1) == 1)
        }
    }
}

private var apusCyclesPerSecond: UInt64 { UInt64(PacketBench.cyclesPerSecond) }
