import CDPDK
import DPDK

/// The short way: packets of which nothing is known and nothing asked, all of them for one port, go there as the burst
/// they came in. Anything else about any of them, and each goes the long way by itself.
///
/// Reads: MAC addresses, on a bridge. Writes: nothing. Next: the transmit queue.
extension Lcore {
    /// False, and nothing done, where the burst is not like that.
    @_noLocks
    mutating func passesPlain(from port: Int) -> Bool {
        guard burst.survey.isPlain else { return false }
        let target = unsafe slots[port].bridge == nil ? slots[port].destination : commonTarget(from: port)
        guard target >= 0, unsafe slots[target].takesPlain(longest: burst.survey.longestBound) else { return false }
        unsafe slots[target].pass(&burst, egress.checksums)
        return true
    }

    /// The port that a bridge without VLANs has all packets of the burst for, or -1. All come from where it knew their
    /// sources to be: it learns nothing new, so that the long way finds everything as it was.
    @_noLocks
    private func commonTarget(from port: Int) -> Int {
        guard let member = unsafe slots[port].bridge, member.vlans.isUnaware else { return -1 }
        let now = AddressTable.tick(lastCycles)
        var target = -1
        // Both addresses of the packet before, as two words that overlap: packets come in trains.
        var lastWords: (UInt64, UInt64) = (0, 0)
        for at in 0..<burst.count {
            let data = unsafe UnsafeRawPointer(burst[at].data)
            let words = unsafe (data.loadUnaligned(as: UInt64.self), data.loadUnaligned(fromByteOffset: 4, as: UInt64.self))
            if words == lastWords, target >= 0 { continue }
            lastWords = words
            let destination = words.0.littleEndian & 0xffff_ffff_ffff, source = words.1.littleEndian &>> 16
            // A group's, or one from a group: both are matters of the long way.
            guard (destination | source) & 1 == 0,
                  member.table.renew(.init(address: source, vlan: 0), port: port, now: now) else { return -1 }
            let found = member.table.lookup(.init(address: destination, vlan: 0), now: now)
            guard found >= 0, found != port, at == 0 || found == target else { return -1 }
            target = found
        }
        guard let vlans = unsafe slots[target].bridge?.vlans, vlans.isUnaware else { return -1 }
        return target
    }
}
