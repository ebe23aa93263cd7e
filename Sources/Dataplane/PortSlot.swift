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

    /// Where this lcore sends.
    let queue: PortQueue
    /// What this lcore polls of the port: nothing where others do. Owned.
    let receivers: UnsafeMutableBufferPointer<Receiver>
    /// What programs see as ifindex.
    let index: UInt32
    private(set) var delivery: Delivery
    /// Says at any time whether `delivery` is full; control: rw. Outlives the slot.
    private let isFull: UnsafePointer<Bool>?
    private(set) var counters: PortCounters
    private let ownCounters: PortCounters
    /// Programs that run on what this port receives, in order. Owned.
    let chain: UnsafeMutableBufferPointer<ProgramStage>
    /// The slot received packets go to by a wire; negative where there is none.
    public var destination = -1
    /// The bridge the port is in.
    public var bridge: BridgeMember?
    var departures: Burst
    /// What the peer takes, asked once a round.
    var capabilities = TransmitCapabilities.nothing
    private var freshBurst: UInt32 = .max

    /// One queue both ways, and nothing else on the lcore that costs to look at.
    public init(queue: PortQueue, index: UInt32, delivery: Delivery, counters: PortCounters, chain stages: [ProgramStage]) {
        unsafe self.init(queue: queue, receivers: [Receiver(queue)], index: index, delivery: delivery, isFull: nil,
                  counters: counters, chain: stages)
    }

    public init(queue: PortQueue, receivers: [Receiver], index: UInt32, delivery: Delivery, isFull: UnsafePointer<Bool>?,
                counters: PortCounters, chain stages: [ProgramStage]) {
        self.queue = queue
        unsafe self.receivers = .allocate(capacity: receivers.count)
        unsafe _ = self.receivers.initialize(from: receivers)
        unsafe self.isFull = isFull
        self.index = index
        self.delivery = delivery
        self.counters = counters
        ownCounters = counters
        unsafe chain = .allocate(capacity: stages.count)
        unsafe _ = chain.initialize(from: stages)
        departures = Burst(capacity: Lcore.burstSize)
    }

    deinit {
        unsafe chain.deallocate()
        unsafe receivers.deallocate()
    }

    /// What is dropped on the way out is counted at another port from now on; nil: here again.
    @_noLocks
    mutating func blame(_ other: PortCounters?) {
        counters = if let other { ownCounters.blaming(other) } else { ownCounters }
    }

    /// Asks the peer once for each burst, not for each packet.
    @_noLocks
    mutating func freshen(_ burst: UInt32) {
        guard burst != freshBurst else { return }
        freshBurst = burst
        refreshCapabilities()
    }

    @_noLocks
    mutating func refreshCapabilities() {
        if let isFull = unsafe isFull { delivery.isFull = unsafe apus_flag_load(isFull) }
        capabilities = delivery.isFull && !Planted.breaks(.deliverFull) ? .nothing : queue.capabilities()
    }

    /// Adds a packet that is fit to leave here; sends first where the burst is full.
    @_noLocks
    mutating func append(_ packet: consuming Packet, _ memory: PacketMemory, _ checksums: ChecksumCounters) {
        guard let ready = queue.prepare(packet, memory, counters) else { return }
        if departures.isFull { flush(checksums) }
        departures.append(ready)
    }

    /// True if a plain burst may leave here without a look at each packet.
    @_noLocks
    func takesPlain(longest: Int) -> Bool {
        // 14 is the least a link layer takes.
        longest &- 14 <= delivery.mtu && departures.count == 0 && queue.takesPlain(longest: longest)
    }

    /// Sends a plain burst as it came.
    @_noLocks
    mutating func pass(_ burst: inout Burst, _ checksums: ChecksumCounters) {
        counters.capture?.transmitting(burst)
        queue.transmit(&burst, counters, checksums)
    }

    @_noLocks
    mutating func flush(_ checksums: ChecksumCounters) {
        guard departures.count > 0 else { return }
        counters.capture?.transmitting(departures)
        queue.transmit(&departures, counters, checksums)
    }
}

/// A receive queue as the lcore that polls it knows it.
@safe public struct Receiver {
    let queue: PortQueue
    /// Of a tap beside other ports: what the lcore's ``TapWatch`` answers for it. 0: it is polled each round.
    let watchBit: UInt64

    public init(_ queue: PortQueue, watchBit: UInt64 = 0) {
        self.queue = queue
        self.watchBit = watchBit
    }
}
