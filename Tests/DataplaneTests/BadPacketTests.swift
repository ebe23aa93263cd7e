import CBPF
import CDPDK
@testable import DPDK
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// The table of bad packets is a group of the matrix; here is what no table foresees.
    @Suite struct BadPacketTests {
        private struct Random: RandomNumberGenerator {
            // xorshift64*: the same packets in every run.
            var state: UInt64
            mutating func next() -> UInt64 {
                state ^= state >> 12
                state ^= state << 25
                state ^= state >> 27
                return state &* 0x2545_F491_4F6C_DD1D
            }
        }

        /// Frames with random damage, random claims and random splits, against the guard pages: balanced, no buffer lost,
        /// and what nobody trusts never leaves trusted (contract, C3).
        @Test(arguments: 1...8) func randomDamage(_ seed: Int) {
            var random = Random(state: UInt64(seed) &* 0x9E37_79B9_7F4A_7C15)
            let memory = GuardedMemory.shared, bench = PacketBench.shared
            let missing = memory.missing + bench.missing
            var carried = 0, dropped = 0
            for _ in 0..<5000 {
                let row = row(&random)
                let peer = Passage.peers.randomElement(using: &random)!
                let edge: GuardedMemory.Edge = Bool.random(using: &random) ? .back : .front
                switch BadPackets.receive(row, edge, TestCounters()) {
                case .dropped: dropped += 1
                case .packet(let packet):
                    carried += 1
                    let isTrusted = packet.state.isTrusted
                    let outcome = Passage.run(packet, to: peer)
                    if !outcome.isBalanced { Issue.record("unbalanced: \(row)") }
                    if !isTrusted, outcome.departures.contains(where: { $0.state.isTrusted }) { Issue.record("laundered: \(row)") }
                }
            }
            #expect(memory.missing + bench.missing == missing)
            #expect(carried > 500 && dropped > 500, "\(carried) carried, \(dropped) dropped")
        }

        private func row(_ random: inout Random) -> BadPackets.Row {
            let specimen = Matrix.specimens.randomElement(using: &random)!
            let isLarge = Int.random(in: 0..<4, using: &random) == 0
            let whole = isLarge ? Specimen(specimen.transport, specimen.network, tags: specimen.tags, payload: 3001) : specimen
            var frame = Bool.random(using: &random) ? whole.unfinished : whole.finished
            for _ in 0..<Int.random(in: 0...4, using: &random) {
                // Headers are where a byte matters.
                let at = min(Int.random(in: 12...(whole.l4 + 20), using: &random), frame.count - 1)
                frame[at] = [0, 0xff, UInt8.random(in: 0...255, using: &random)].randomElement(using: &random)!
            }
            if Int.random(in: 0..<3, using: &random) == 0 { frame = Array(frame.prefix(Int.random(in: 14...frame.count, using: &random))) }
            let start = Int.random(in: 0..<4, using: &random) == 0 ? Int.random(in: 0...frame.count + 40, using: &random) : whole.l4
            let offset = Int.random(in: 0..<4, using: &random) == 0 ? Int.random(in: 0...60, using: &random) : whole.offset
            let size = [0, 1, 4, 8, 100, 1000, 1448, 65_535].randomElement(using: &random)!
            if Bool.random(using: &random) {
                let gso = [0, 0, 0, 1, 3, 4, 5, 0x81, 9].randomElement(using: &random)!
                return BadPackets.Row(name: "random", frame: frame,
                                      claim: .virtio(flags: Int.random(in: 0...3, using: &random), gso: gso, size: size, start: start, offset: offset),
                                      answer: .carried(.none))
            }
            var splits: [Int] = []
            if Bool.random(using: &random) {
                splits = (0..<Int.random(in: 1...6, using: &random)).map { _ in Int.random(in: 0...frame.count, using: &random) }.sorted()
            }
            let words = [apus_flag_rx_l4_unknown, apus_flag_rx_l4_good, apus_flag_rx_l4_bad, apus_flag_rx_l4_partial]
            let flags = words.randomElement(using: &random)! | (isLarge ? apus_flag_rx_lro : 0)
            return BadPackets.Row(name: "random", frame: frame, splits: splits, claim: .flags(flags, segment: size), answer: .carried(.none))
        }

        /// A virtio-user port whose peer could not map packet memory is an error at start, and no silence later.
        @Test(arguments: [(-1, "cannot be shared"), (9, "lies in 9 pieces"), (8, ""), (1, "")])
        func memoryThatNoPeerCanMap(regions: Int, words: String) {
            do {
                try EAL.checkSharedMemory(regions: regions)
                #expect(words.isEmpty)
            } catch {
                #expect(!words.isEmpty && "\(error)".contains(words))
            }
        }

        /// The guard is a guard: else nothing above could have failed.
        @Test func theGuardPagesAreThere() async {
            await #expect(processExitsWith: .failure) {
                apus_report_here()
                let packet = GuardedMemory.shared.packet([UInt8](repeating: 1, count: 60), edge: .back)
                let sum = unsafe OnesComplementSum.of(UnsafeRawPointer(packet.data), count: 61)
                print(sum)
            }
        }
    }
}
