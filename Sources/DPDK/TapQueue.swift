import CDPDK
import CLinux
import Glibc
import Wire

/// One tap queue as its lcore sees it. Memory is taken here, before the first poll.
///
/// A frame is read into a large buffer that stays with the queue; a small frame is copied out into a
/// small buffer and the large one is read into again, so that 64 bytes never carry 64 KB along and
/// a superframe is never copied.
@safe public struct TapQueue: ~Copyable {
    let fd: Int32
    private let small: PacketAllocator
    private let large: PacketAllocator
    private var resident: Packet?
    /// The virtio header goes first: `vectors[0]` always points at it.
    private let header: UnsafeMutablePointer<apus_vnet_header>
    private let vectors: UnsafeMutablePointer<iovec>

    /// Free bytes in front of a frame: what the kernel gives XDP programs (XDP_PACKET_HEADROOM).
    public static var headroom: Int { 256 }
    /// Frames up to this many bytes move to a small buffer.
    public static var smallFrameMax: Int { 2048 }
    /// Bytes of a small buffer.
    public static var smallRoom: Int { headroom + smallFrameMax }
    private static var vectorCountMax: Int { 64 }

    /// The port outlives the queue. Several may send by one number, each on its lcore; one receives.
    public init(_ port: borrowing TapPort, number: Int = 0, small: PacketAllocator, large: PacketAllocator) {
        fd = port.descriptors[number].number
        self.small = small
        self.large = large
        unsafe vectors = .allocate(capacity: Self.vectorCountMax)
        unsafe vectors.initialize(repeating: iovec(), count: Self.vectorCountMax)
        unsafe header = .allocate(capacity: 1)
        unsafe header.initialize(to: apus_vnet_header())
        unsafe vectors[0] = unsafe iovec(iov_base: header, iov_len: MemoryLayout<apus_vnet_header>.size)
    }

    deinit {
        unsafe vectors.deallocate()
        unsafe header.deallocate()
    }

    /// Reads frames until the burst is full or the device has none.
    @_noLocks
    public mutating func receive(into burst: inout Burst, _ counters: PortCounters) {
        while !burst.isFull {
            guard let buffer = resident.take() ?? large.allocate() else { return }
            let room = buffer.bufferLength &- Self.headroom
            unsafe buffer.setWindow(start: buffer.buffer + Self.headroom, count: room)
            unsafe vectors[1] = unsafe iovec(iov_base: buffer.data, iov_len: room)
            let got = unsafe apus_readv(fd, vectors, 2)
            let length = got &- MemoryLayout<apus_vnet_header>.size
            guard length > 0 else {
                resident = consume buffer
                return
            }
            counters.add(.receivedPackets, 1)
            counters.add(.receivedBytes, length)
            // The kernel cuts off what does not fit and says nothing.
            guard length < room else {
                counters.dropped(.tooLarge, buffer)
                resident = consume buffer
                continue
            }
            unsafe buffer.setWindow(start: buffer.data, count: length)
            accept(buffer, length, &burst, counters)
        }
    }

    @_noLocks
    private mutating func accept(_ buffer: consuming Packet, _ length: Int, _ burst: inout Burst,
                                 _ counters: PortCounters) {
        guard length >= 14 else {
            counters.dropped(.tooShort, buffer)
            resident = consume buffer
            return
        }
        switch unsafe StateMapping.arrival(of: buffer, header.pointee) {
        case .drop(let reason):
            counters.dropped(reason, buffer)
            resident = consume buffer
        case .state(let state):
            if state.isSuperframe { counters.add(.receivedSuperframes, 1) }
            guard length <= Self.smallFrameMax else {
                buffer.state = state
                burst.append(buffer)
                return
            }
            guard let packet = small.allocate() else {
                counters.dropped(.noMemory, buffer)
                resident = consume buffer
                return
            }
            unsafe packet.setWindow(start: packet.buffer + Self.headroom, count: length)
            unsafe apus_copy(packet.data, buffer.data, length)
            packet.state = state
            burst.append(packet)
            resident = consume buffer
        }
    }

    /// Writes every packet of the burst and frees them.
    @_noLocks
    public mutating func transmit(_ burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        for index in 0..<burst.count {
            let state = burst[index].state
            let length = burst[index].length
            guard write(burst[index], state) else {
                counters.dropped(.transmitRefused, burst[index])
                continue
            }
            counters.transmitted(length, state)
            checksums.transmitted(state)
        }
        burst.drop()
    }

    @_noLocks
    private mutating func write(_ packet: borrowing Packet, _ state: ChecksumState) -> Bool {
        unsafe header.pointee = StateMapping.header(for: state)
        var count = 1
        var segment: OpaquePointer? = unsafe packet.mbuf
        while let current = unsafe segment {
            guard count < Self.vectorCountMax else { return false }
            unsafe vectors[count] = unsafe iovec(iov_base: apus_mbuf_data(current), iov_len: Int(apus_mbuf_data_length(current)))
            count &+= 1
            unsafe segment = apus_mbuf_next(current)
        }
        return unsafe apus_writev(fd, vectors, Int32(truncatingIfNeeded: count)) > 0
    }
}
