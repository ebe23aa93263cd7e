import CDPDK
import Wire
@testable import DPDK

extension Arrivals {
    /// Drivers that are neither vhost nor virtio: "both bits" mean nothing there, and what a NIC joined is a superframe
    /// only where it was verified (contract section 2).
    static func devices(_ report: Report) {
        let words: [(String, UInt64)] = [("unknown", apus_flag_rx_l4_unknown), ("good", apus_flag_rx_l4_good), ("bad", apus_flag_rx_l4_bad),
                                         ("both bits", apus_flag_rx_l4_partial)]
        for specimen in Matrix.specimens where specimen.tunnel == .plain {
            for (word, flag) in words {
                for isMerged in [false, true] {
                    let packet = PacketBench.shared.packet(specimen.finished, .none)
                    unsafe apus_mbuf_set_offload(packet.mbuf, flag | (isMerged ? apus_flag_rx_lro : 0), 0, 0, 0, isMerged ? 20 : 0)
                    report.count(("arrival", "device: \(isMerged ? "merged, " : "")\(word)"), ("protocol", specimen.transport.rawValue),
                                 ("network", specimen.network.rawValue), ("nesting", "plain, \(specimen.tags) tags"))
                    let name = "\(word)\(isMerged ? ", merged" : "") \(specimen.name) from a device"
                    let arrival = StateMapping.arrivalFromDevice(packet)
                    guard isMerged else {
                        let expected: ChecksumState.Kind = word == "bad" ? .bad : word == "good" && specimen.isKnown ? .unnecessary : .none
                        guard case .state(let state) = arrival else { report.expect(false, "\(name): dropped"); continue }
                        report.expect(state.kind == expected && packet.bytes == specimen.finished, "\(name): \(state.kind)")
                        continue
                    }
                    let isGood = word == "good" && specimen.isKnown && specimen.transport == .tcp
                    guard case .state(let state) = arrival else { report.expect(!isGood, "\(name): dropped"); continue }
                    report.expect(isGood && state.kind == .known && state.isSuperframe && packet.bytes == specimen.unfinished, "\(name): \(state.kind)")
                }
            }
        }
    }
}
