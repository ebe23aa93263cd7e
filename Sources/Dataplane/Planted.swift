#if APUS_PLANTED
import CDPDK
import DPDK

/// Bugs planted on purpose, so that tests can show that they would be found. Only in builds made with
/// APUS_PLANTED; `APUS_PLANT` in the daemon's environment chooses one.
enum Planted {
    /// `wrong-seed`: whatever leaves unfinished starts from a seed that is off by one.
    @_noLocks
    static func spoilSeed(_ packet: borrowing Packet) {
        let state = packet.state
        guard apus_planted_wrong_seed(), state.isPartial, state.field &+ 2 <= packet.dataLength else { return }
        unsafe packet.data.storeMemoryOrder16(UnsafeRawPointer(packet.data).memoryOrder16(state.field) ^ 0x0100, state.field)
    }
}
#endif
