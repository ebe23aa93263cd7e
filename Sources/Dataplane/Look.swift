import CDPDK
import DPDK
import Wire

/// What it takes to finish a packet's checksum in the middle of a run, because the program is about to look at it
/// (checksum contract, section 4). Lives on the lcore's stack while the program runs.
@safe struct Look {
    let mbuf: OpaquePointer
    /// The arrival's bytes, which must stay what the program started from; 0 bytes where none were taken.
    let shadow: UnsafeMutableRawPointer
    let shadowCount: Int
    let checksums: ChecksumCounters
}

/// Called by the engine, which knows no packets. `argument` points to a ``Look``. A function of no type, because only
/// such a one is a C function pointer without further ado.
@_noLocks
func finishForLook(_ argument: UnsafeMutableRawPointer) {
    let look = unsafe argument.assumingMemoryBound(to: Look.self).pointee
    let packet = unsafe Packet(taking: look.mbuf)
    let field = packet.state.field
    Completion.complete(packet, .xdpRead, look.checksums)
    if field &+ 2 <= look.shadowCount, !Planted.breaks(.lookLeavesShadow) {
        unsafe (look.shadow + field).copyMemory(from: packet.data + field, byteCount: 2)
    }
    _ = unsafe packet.release()
}
