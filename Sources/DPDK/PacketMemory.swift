import Wire

/// Where an lcore gets buffers from.
public struct PacketMemory {
    public let small: PacketAllocator
    public let large: PacketAllocator
    /// Packet bytes a small buffer holds.
    public let smallBytes: Int

    public init(small: PacketAllocator, large: PacketAllocator, smallBytes: Int) {
        self.small = small
        self.large = large
        self.smallBytes = smallBytes
    }

    @_noLocks public func allocate(bytes: Int) -> Packet? { bytes <= smallBytes ? small.allocate() : large.allocate() }

    /// The same bytes and state in one segment of its own; nil where there is no memory, or no buffer is large enough.
    @_noLocks public func copy(_ packet: borrowing Packet) -> Packet? {
        let length = packet.length
        guard let copy = allocate(bytes: length) else { return nil }
        guard unsafe copy.data + length <= copy.buffer + copy.bufferLength else { return nil }
        unsafe copy.setWindow(start: copy.data, count: length)
        unsafe packet.copyBytes(from: 0, count: length, to: copy.data)
        copy.state = packet.state
        return copy
    }
}
