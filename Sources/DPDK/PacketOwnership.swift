import CDPDK
import Wire

/// Whose a packet's bytes are (checksum contract, section 6): whoever writes header bytes owns them.
extension Packet {
    /// Another packet over the same bytes, with the same state. Neither may be written until
    /// ``makeExclusive(headerBytes:memory:)``. nil where there was no memory.
    @_noLocks
    public func clone(_ memory: PacketMemory) -> Packet? {
        guard let mbuf = unsafe apus_mbuf_clone(self.mbuf, memory.small.mempool) else { return nil }
        return unsafe Packet(taking: mbuf)
    }

    /// The same packet, whose first `headerBytes` (at least; as far as its first segment reaches) nobody else holds: as
    /// it is, or with a private first segment for them, before which there is headroom, and the rest shared behind it.
    /// - Returns: nil where there was no memory; the packet is then freed.
    @_noLocks
    public consuming func makeExclusive(headerBytes: Int, memory: PacketMemory) -> Packet? {
        if isExclusive { return self }
        let count = min(headerBytes, dataLength)
        guard count < dataLength || !isLinear else { return memory.copy(self) }
        guard count <= memory.smallBytes, let head = memory.small.allocate() else { return nil }
        let state = state
        unsafe head.setWindow(start: head.data, count: count)
        unsafe apus_copy(head.data, data, count)
        // The window is this mbuf's own, whoever else holds the buffer.
        unsafe setWindow(start: data + count, count: dataLength &- count)
        guard head.chain(self) else { return nil }
        head.state = state
        return head
    }
}
