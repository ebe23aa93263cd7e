public import Wire

/// VLAN tags (IEEE 802.1Q). Whoever moves the link layer under a packet tells its state here: the bridge that
/// pushes and pops, and reconciliation after a program did.
extension Packet {
    /// The link layer is now `bytes` longer, or shorter; nothing from the network header on changed.
    @inlinable @_noLocks public func linkLayerGrew(by bytes: Int) {
        let old = state
        guard old.isTrusted, !Planted.breaks(.tagMoves) else { return }
        state = old.moved(by: bytes)
    }

    /// Puts a tag behind the MAC addresses. False, and nothing done, where there is no headroom.
    /// The packet is exclusive, and its first segment holds the MAC addresses.
    @_noLocks public func pushTag(_ type: EtherType, _ control: UInt16) -> Bool {
        guard unsafe data - buffer >= 4, dataLength >= 14 else { return false }
        unsafe setWindow(start: data - 4, count: dataLength &+ 4)
        unsafe data.copyMemory(from: data + 4, byteCount: 12)
        unsafe data.storeBigEndian16(type.rawValue, 12)
        unsafe data.storeBigEndian16(control, 14)
        linkLayerGrew(by: 4)
        return true
    }

    /// Takes the outermost tag away and gives its control word (priority and VLAN); nil where there is none.
    /// The packet is exclusive, and its first segment holds the tag.
    @_noLocks public func popTag() -> UInt16? {
        guard dataLength >= 18, unsafe EtherType(rawValue: UnsafeRawPointer(data).bigEndian16(12)).isVLAN else { return nil }
        let control = unsafe UnsafeRawPointer(data).bigEndian16(14)
        unsafe (data + 4).copyMemory(from: data, byteCount: 12)
        unsafe setWindow(start: data + 4, count: dataLength &- 4)
        linkLayerGrew(by: -4)
        return control
    }
}
