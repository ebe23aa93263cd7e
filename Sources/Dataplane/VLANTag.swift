import DPDK
import Wire

/// IEEE 802.1Q tags of a packet. Pushing and popping move where the checksum stands, and change nothing it covers.
enum VLANTag {
    /// Header bytes that become the packet's own: every header the parser looks for still lies in the first segment.
    static var headerBytes: Int { 256 }

    /// The tag's VLAN, or -1: there is none. A frame has at least 14 bytes in its first segment.
    @_noLocks
    static func vlan(of packet: borrowing Packet) -> Int {
        let data = unsafe UnsafeRawPointer(packet.data)
        guard packet.dataLength >= 18, unsafe data.bigEndian16(12) == EtherType.vlan.rawValue else { return -1 }
        return unsafe Int(data.bigEndian16(14) & 0xfff)
    }

    /// nil where there was no memory; the packet is then freed.
    @_noLocks
    static func push(_ vlan: UInt16, on packet: consuming Packet, _ memory: PacketMemory) -> Packet? {
        guard let own = packet.owned(first: headerBytes, memory.small) else { return nil }
        if own.pushTag(.vlan, vlan) { return own }
        // No headroom: a copy has some.
        guard let copy = memory.copy(own) else { return nil }
        guard copy.pushTag(.vlan, vlan) else { return nil }
        return copy
    }

    /// The packet has a tag. nil where there was no memory; the packet is then freed.
    @_noLocks
    static func pop(_ packet: consuming Packet, _ memory: PacketMemory) -> Packet? {
        guard let own = packet.owned(first: headerBytes, memory.small) else { return nil }
        _ = own.popTag()
        return own
    }
}

/// How a port of a bridge takes part in VLANs. Trivial; a trunk's set outlives it.
@safe public struct VLANMembership {
    @safe private enum Mode {
        case unaware
        case access(UInt16)
        case trunk(UnsafePointer<UInt64>)
    }

    private let mode: Mode

    /// Tags are nothing but bytes.
    public static var unaware: VLANMembership { VLANMembership(mode: .unaware) }
    /// Untagged frames are of this VLAN; tagged ones do not pass.
    public static func access(_ vlan: UInt16) -> VLANMembership { VLANMembership(mode: .access(vlan)) }
    /// Tagged frames of the VLANs in the set, 4096 bits; untagged ones do not pass.
    public static func trunk(_ set: UnsafePointer<UInt64>) -> VLANMembership { unsafe VLANMembership(mode: .trunk(set)) }

    var isUnaware: Bool { if case .unaware = mode { true } else { false } }

    /// The VLAN of a frame that arrives with the tag `tag` (-1: none), or -1 where it may not.
    @_noLocks
    func vlan(tag: Int) -> Int {
        switch mode {
        case .unaware: 0
        // A priority tag (VLAN 0) names no VLAN.
        case .access(let vlan): tag <= 0 ? Int(vlan) : -1
        case .trunk(let set): unsafe tag > 0 && Self.contains(set, tag) ? tag : -1
        }
    }

    @_noLocks
    func admits(_ vlan: Int) -> Bool {
        switch mode {
        case .unaware: true
        case .access(let own): Int(own) == vlan
        case .trunk(let set): unsafe Self.contains(set, vlan)
        }
    }

    /// As the frame leaves here: tagged or not.
    @_noLocks
    func dressed(_ packet: consuming Packet, vlan: Int, _ memory: PacketMemory) -> Packet? {
        switch mode {
        case .unaware: return packet
        case .access:
            guard VLANTag.vlan(of: packet) < 0 else { return VLANTag.pop(packet, memory) }
            return packet
        case .trunk:
            let tag = VLANTag.vlan(of: packet)
            guard tag <= 0 else { return packet }
            let id = UInt16(truncatingIfNeeded: vlan)
            guard tag == 0 else { return VLANTag.push(id, on: packet, memory) }
            guard let bare = VLANTag.pop(packet, memory) else { return nil }
            return VLANTag.push(id, on: bare, memory)
        }
    }

    @_noLocks
    private static func contains(_ set: UnsafePointer<UInt64>, _ vlan: Int) -> Bool { unsafe set[vlan &>> 6] &>> (UInt64(vlan) & 63) & 1 != 0 }
}
