import CDPDK
import DPDK
import Wire

/// A bridge as a port of it knows it. Trivial; what it points at outlives it.
@safe public struct BridgeMember {
    let table: AddressTable
    /// Slots of the bridge's ports.
    let members: UnsafeBufferPointer<Int>
    let vlans: VLANMembership

    public init(table: AddressTable, members: UnsafeBufferPointer<Int>, vlans: VLANMembership) {
        self.table = table
        unsafe self.members = members
        self.vlans = vlans
    }
}

/// The bridge: learns where addresses are, sends what is for one of them there, and floods the rest.
///
/// Reads: both addresses, the tag. Writes: tags, where a frame leaves otherwise than it came. Next: egress of a member,
/// or of several: each gets the same bytes, and owns what it writes.
extension Lcore {
    @_noLocks
    mutating func bridge(_ member: BridgeMember, from port: Int) {
        let now = AddressTable.tick(lastCycles)
        let counters = unsafe slots[port].counters
        var floods = 0
        for at in 0..<burst.count {
            let packet = burst.take(at)
            let data = unsafe UnsafeRawPointer(packet.data)
            let destination = unsafe data.loadUnaligned(as: UInt64.self).littleEndian & 0xffff_ffff_ffff
            let source = unsafe data.loadUnaligned(fromByteOffset: 4, as: UInt64.self).littleEndian &>> 16
            let vlan = member.vlans.vlan(tag: VLANTag.vlan(of: packet))
            guard vlan >= 0 else {
                counters.dropped(.vlan, packet)
                continue
            }
            // 01-80-C2-00-00-00 to -0F, the first byte lowest.
            guard destination & 0xf0ff_ffff_ffff != 0x0000_00c2_8001, source & 1 == 0 else {
                counters.dropped(.bridgeAddress, packet)
                continue
            }
            let id = UInt16(truncatingIfNeeded: vlan)
            if !member.table.learn(.init(address: source, vlan: id), port: port, now: now) { counters.add(.notLearned, 1) }
            let target = destination & 1 != 0 ? -1 : member.table.lookup(.init(address: destination, vlan: id), now: now)
            if target < 0 {
                burst.keep(packet, at: floods)
                floods &+= 1
            } else {
                send(packet, from: port, to: target, vlan)
            }
        }
        burst.truncate(to: floods)
        // What has one receiver is on its way before the floods, whose losses are their sender's.
        for number in unsafe member.members.indices { unsafe slots[member.members[number]].flush(egress.checksums) }
        if floods > 0 { flood(member, from: port) }
    }

    @_noLocks
    private mutating func send(_ packet: consuming Packet, from port: Int, to target: Int, _ vlan: Int) {
        guard target != port else { return unsafe slots[port].counters.dropped(.samePort, packet) }
        guard let vlans = unsafe slots[target].bridge?.vlans, vlans.admits(vlan) else {
            return unsafe slots[port].counters.dropped(.vlan, packet)
        }
        unsafe slots[target].freshen(burstNumber)
        guard let dressed = vlans.dressed(packet, vlan: vlan, egress.memory) else {
            return unsafe slots[port].counters.dropped(.noMemory)
        }
        unsafe egress.send(dressed, by: &slots[target])
    }

    /// The whole burst to every other member of each packet's VLAN. The last one gets the packet, the others clones.
    @_noLocks
    private mutating func flood(_ member: BridgeMember, from port: Int) {
        let counters = unsafe slots[port].counters
        for number in unsafe member.members.indices {
            let target = unsafe member.members[number]
            unsafe slots[target].blame(counters)
            unsafe slots[target].freshen(burstNumber)
        }
        for at in 0..<burst.count { flood(burst.take(at), member, from: port) }
        burst.truncate(to: 0)
        for number in unsafe member.members.indices {
            let target = unsafe member.members[number]
            unsafe slots[target].flush(egress.checksums)
            unsafe slots[target].blame(nil)
        }
    }

    @_noLocks
    private mutating func flood(_ packet: consuming Packet, _ member: BridgeMember, from port: Int) {
        let counters = unsafe slots[port].counters
        let vlan = member.vlans.vlan(tag: VLANTag.vlan(of: packet))
        var last = -1
        for number in unsafe member.members.indices {
            let target = unsafe member.members[number]
            guard target != port, unsafe slots[target].bridge?.vlans.admits(vlan) == true else { continue }
            // The one before gets its copy now that it is known not to be the last.
            if last >= 0 {
                counters.add(.created, 1)
                if let copy = packet.clone(egress.memory.small) { send(copy, from: port, to: last, vlan) } else { counters.dropped(.noMemory) }
            }
            last = target
        }
        guard last >= 0 else { return counters.dropped(.vlan, packet) }
        send(packet, from: port, to: last, vlan)
    }
}
