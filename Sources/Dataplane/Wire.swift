import DPDK

/// The wire: everything left in the burst goes to the other end.
///
/// Reads: nothing of the packet. Writes: nothing. Next: egress of the other port.
extension Lcore {
    @_noLocks
    mutating func wire(from port: Int, to destination: Int) {
        unsafe slots[destination].freshen(burstNumber)
        for at in 0..<burst.count { unsafe egress.send(burst.take(at), by: &slots[destination]) }
        burst.truncate(to: 0)
        unsafe slots[destination].flush(egress.checksums)
    }
}
