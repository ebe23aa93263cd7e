import CDPDK

extension Packet {
    /// Another packet over the same bytes, with the same state. Whoever then writes to one of them makes it
    /// ``owned(first:_:)`` before. nil where there was no memory.
    @_noLocks
    public func clone(_ memory: PacketMemory) -> Packet? {
        guard let mbuf = unsafe apus_mbuf_clone(self.mbuf, memory.small.mempool) else { return nil }
        return unsafe Packet(taking: mbuf)
    }
}
