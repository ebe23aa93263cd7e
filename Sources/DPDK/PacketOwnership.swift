import CDPDK
import Wire

/// Whose a packet's bytes are (checksum contract, section 6): whoever writes header bytes owns them.
extension Packet {
    /// Another packet over the same bytes and in the same state: neither may be written to from here on, until the
    /// other is gone. Nil where there is no memory.
    @_noLocks
    public func clone(_ memory: PacketAllocator) -> Packet? {
        guard let mbuf = unsafe apus_mbuf_clone(mbuf, memory.mempool) else { return nil }
        return unsafe Packet(taking: mbuf)
    }

    /// The same packet with its first `count` bytes in one segment that nobody else holds; what follows stays
    /// shared. Whoever writes header bytes needs that: another holder of the bytes would see the writes.
    /// - Returns: nil, and the packet is freed, where there was no memory or the chain would be too long.
    @_noLocks
    public consuming func owned(first count: Int, _ memory: PacketAllocator) -> Packet? {
        let count = min(count, length)
        if isExclusive || Planted.breaks(.sharedHeaders), dataLength >= count { return self }
        guard let head = memory.allocate() else { return nil }
        guard unsafe head.data + count <= head.buffer + head.bufferLength else { return nil }
        unsafe head.setWindow(start: head.data, count: count)
        unsafe copyBytes(from: 0, count: count, to: head.data)
        head.state = state
        guard let rest = unsafe apus_mbuf_cut_front(release(), UInt32(truncatingIfNeeded: count)) else { return head }
        guard unsafe head.chain(Packet(taking: rest)) else { return nil }
        return head
    }
}
