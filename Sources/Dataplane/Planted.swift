#if APUS_PLANTED
import CDPDK
import DPDK
import Wire

/// What the daemon can break, besides the rules that tests break: only in builds made with APUS_PLANTED;
/// `APUS_PLANT` in the daemon's environment chooses.
extension Planted {
    /// `wrong-seed`: whatever leaves unfinished starts from a seed that is off by one.
    @_noLocks
    static func spoilSeed(_ packet: borrowing Packet) {
        let state = packet.state
        guard apus_planted_wrong_seed(), state.isPartial, state.field &+ 2 <= packet.dataLength else { return }
        unsafe packet.data.storeMemoryOrder16(UnsafeRawPointer(packet.data).memoryOrder16(state.field) ^ 0x0100, state.field)
    }
}
#endif
