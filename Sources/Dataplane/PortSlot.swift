import CDPDK
public import DPDK
import Wire

/// A port as one lcore carries it.
@safe public struct PortSlot: ~Copyable {
    /// What `deliver` and `verified` ask for at this port (checksum contract, section 6).
    public struct Delivery: Sendable {
        /// Finished packets only, whatever was negotiated.
        public var isFull: Bool
        /// Mark verified packets unfinished, so that the receiver need not verify.
        public var reseedsVerified: Bool
        /// Bytes behind the link layer that the peer takes, a superframe's segments included.
        public var mtu: Int

        public init(isFull: Bool, reseedsVerified: Bool, mtu: Int = 65_535) {
            self.isFull = isFull
            self.reseedsVerified = reseedsVerified
            self.mtu = mtu
        }
    }

    let queue: PortQueue
    /// What programs see as ifindex.
    let index: UInt32
    let delivery: Delivery
    let counters: PortCounters
    /// Programs that run on what this port receives, in order. Owned.
    let chain: UnsafeMutableBufferPointer<ProgramStage>
    /// The slot received packets go to; negative where there is none.
    public var destination = -1
    var departures: Burst
    /// What the peer takes, asked once a round.
    var capabilities = TransmitCapabilities.nothing

    public init(queue: PortQueue, index: UInt32, delivery: Delivery, counters: PortCounters, chain stages: [ProgramStage]) {
        self.queue = queue
        self.index = index
        self.delivery = delivery
        self.counters = counters
        unsafe chain = .allocate(capacity: stages.count)
        unsafe _ = chain.initialize(from: stages)
        departures = Burst(capacity: Lcore.burstSize)
    }

    deinit { unsafe chain.deallocate() }

    @_noLocks
    mutating func refreshCapabilities() {
        capabilities = delivery.isFull ? .nothing : queue.capabilities()
    }

    /// Adds a packet that is fit to leave here; sends first where the burst is full.
    @_noLocks
    mutating func append(_ packet: consuming Packet, _ memory: PacketMemory, _ checksums: ChecksumCounters) {
        guard let ready = queue.prepare(packet, memory.small) else { return counters.dropped(.noMemory) }
        if departures.isFull { flush(checksums) }
        departures.append(ready)
    }

    @_noLocks
    mutating func flush(_ checksums: ChecksumCounters) {
        guard departures.count > 0 else { return }
        queue.transmit(&departures, counters, checksums)
    }
}

/// Where an lcore gets buffers from.
public struct PacketMemory {
    public let small: PacketAllocator
    public let large: PacketAllocator
    /// Packet bytes a small buffer holds.
    let smallBytes: Int

    public init(small: PacketAllocator, large: PacketAllocator, smallBytes: Int) {
        self.small = small
        self.large = large
        self.smallBytes = smallBytes
    }

    @_noLocks func allocate(bytes: Int) -> Packet? { bytes <= smallBytes ? small.allocate() : large.allocate() }
}
