import CDPDK
@testable import DPDK
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    @Suite struct MatrixTests {
        static let groups: [(name: String, run: @Sendable (Report) -> Void)] = [
            ("leaving", Matrix.leaving), ("superframes", Matrix.superframes), ("edges", Matrix.edges), ("MTU", Matrix.mtu),
            ("arriving by tap", Arrivals.tap), ("arriving with flags", Arrivals.flags), ("arriving from devices", Arrivals.devices), ("rx-checksum", Arrivals.policies), ("vhost", Arrivals.vhost),
            ("writing", Writes.programs), ("bad packets", BadPackets.table),
        ]

        @Test(arguments: groups.indices) func matrix(_ index: Int) {
            let report = Report()
            Self.groups[index].run(report)
            print("\(Self.groups[index].name): \(report.summary)")
            #expect(report.failures.isEmpty, "\(report.failures.count) of \(report.cases): \(report.failures.prefix(8).joined(separator: "\n"))")
        }

        /// Contract section 6: a superframe's seed as vhost takes it (23c1) and as its enqueue would leave it (140d).
        @Test func vhostWouldTakeTheLengthOut() {
            var frame = Specimen(.tcp, .ipv4, payload: 4000).unfinished
            frame.replaceSubrange(26..<34, with: [10, 0, 0, 3, 10, 0, 0, 4])
            Reference.put(&frame, 50, Reference.transport(frame, at: 14).pseudo)
            #expect(Reference.word(frame, 50) == 0x23c1)
            let state = ChecksumState.known(start: 34, offset: 16).superframe(.tcp4, segmentSize: 1448, congestion: false)
            let bare = PacketBench.shared.packet(frame, state)
            unsafe apus_mbuf_set_offload(bare.mbuf, apus_flag_tx_ipv4 | apus_flag_tx_tcp | apus_flag_tx_tso, 14, 20, 20, 1448)
            unsafe #expect(apus_vhost_enqueue_seeds(bare.mbuf) == 0)
            #expect(Reference.word(bare.bytes, 50) == 0x140d)
            guard let ready = Arrivals.preparedForVhost(PacketBench.shared.packet(frame, state), TestCounters()) else {
                Issue.record("no memory")
                return
            }
            unsafe _ = apus_vhost_enqueue_seeds(ready.mbuf)
            #expect(Reference.word(ready.bytes, 50) == 0x23c1)
        }

        /// Contract section 6: behind IPv6 extension headers vhost's enqueue seeds from the IPv6 header alone: its next header
        /// for the protocol, and a length with the extension headers (fa56, fa81).
        @Test(arguments: [(0, 0xfa56, 0xfa5f), (43, 0xfa81, 0xfa4f)])
        func vhostWouldSeedFromTheIPv6HeaderAlone(next: Int, wrong: Int, right: Int) {
            func address(_ last: UInt8) -> [UInt8] { [0xfd, 0] + [UInt8](repeating: 0, count: 13) + [last] }
            // Hop by hop with padding, or a segment routing header that was followed.
            let header: [UInt8] = next == 0 ? [17, 0, 1, 4, 0, 0, 0, 0] : [17, 2, 4, 0, 0, 0, 0, 0] + address(2)
            let length = 82 - header.count
            let frame: [UInt8] = [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 82, UInt8(next), 64] + address(1) + address(2)
                + header + [0x1f, 0x90, 0xc0, 1, 0, UInt8(length)] + Reference.bytes16(right) + [UInt8](repeating: 1, count: length - 8)
            let l4 = 54 + header.count, state = ChecksumState.known(start: UInt16(l4), offset: 6)
            let bare = PacketBench.shared.packet(frame, state)
            unsafe apus_mbuf_set_offload(bare.mbuf, apus_flag_tx_ipv6 | apus_flag_tx_udp, 14, UInt16(l4 - 14), 8, 0)
            unsafe #expect(apus_vhost_enqueue_seeds(bare.mbuf) == 0)
            #expect(Reference.word(bare.bytes, l4 + 6) == wrong)
            guard let ready = Arrivals.preparedForVhost(PacketBench.shared.packet(frame, state), TestCounters()) else {
                Issue.record("no memory")
                return
            }
            unsafe _ = apus_vhost_enqueue_seeds(ready.mbuf)
            #expect(ready.bytes == frame)
            let arrived = PacketBench.shared.packet(frame, .none)
            ReceivePolicy(infers: true).settle(arrived, TestCounters().checksums)
            #expect(arrived.state == state, "the seed is the right one")
        }

        /// Contract section 2: while segments are left the pseudo-header names the last one (fa60), not the header's (fa51).
        @Test func seedOfARoutingHeader() {
            func address(_ last: UInt8) -> [UInt8] { [0xfd, 0] + [UInt8](repeating: 0, count: 13) + [last] }
            let frame: [UInt8] = [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 100, 43, 64] + address(1) + address(2)
                + [17, 4, 4, 1, 1, 0, 0, 0] + address(0x11) + address(2) + [0x1f, 0x90, 0xc0, 1, 0, 60, 0, 0] + [UInt8](repeating: 1, count: 52)
            for (left, seed) in [(1, 0xfa60), (0, 0xfa51)] {
                var frame = frame
                frame[57] = UInt8(left)
                let packet = PacketBench.shared.packet(frame, .none)
                unsafe #expect(packet.headers().pseudoHeaderSum(UnsafeRawPointer(packet.data)).folded.bigEndian == seed)
                Reference.put(&frame, 100, seed)
                let unfinished = PacketBench.shared.packet(frame, .none)
                ReceivePolicy(infers: true).settle(unfinished, TestCounters().checksums)
                #expect(unfinished.state == .known(start: 94, offset: 6))
            }
        }
    }
}
