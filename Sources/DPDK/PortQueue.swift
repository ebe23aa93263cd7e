import Wire

/// A port's queue on one lcore, whatever drives it: one switch a burst, none a packet.
///
/// Trivial: what it points at outlives it.
@safe public struct PortQueue {
    @safe private enum Driver {
        case tap(UnsafeMutablePointer<TapQueue>)
        case eth(EthQueue)
        case vhost(VhostQueue)
        case memory(UnsafeMutablePointer<MemoryQueue>)
    }

    private let driver: Driver
    /// What is made of checksums beyond the driver's word.
    public var policy = ReceivePolicy.device

    /// Looking for packets takes a system call, found or not.
    public var isExpensiveToPoll: Bool { if case .tap = driver { true } else { false } }

    /// Readable while there is something to receive; nil where looking costs no system call.
    var tapDescriptor: Int32? { if case .tap(let queue) = driver { unsafe queue.pointee.fd } else { nil } }

    public init(_ tap: UnsafeMutablePointer<TapQueue>) { unsafe driver = .tap(tap) }
    public init(_ eth: EthQueue) { driver = .eth(eth) }
    public init(_ vhost: VhostQueue) { driver = .vhost(vhost) }
    public init(_ memory: UnsafeMutablePointer<MemoryQueue>) { unsafe driver = .memory(memory) }

    /// Fills the empty burst; every packet in it has its state.
    @_noLocks
    public func receive(into burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        switch driver {
        case .tap(let queue): unsafe queue.pointee.receive(into: &burst, counters)
        case .eth(let queue): queue.receive(into: &burst, counters, checksums)
        case .vhost(let queue): queue.receive(into: &burst, counters, checksums)
        case .memory(let queue): unsafe queue.pointee.receive(into: &burst, counters)
        }
        guard burst.count > 0 else { return }
        if !burst.survey.isPlain || policy != .device {
            burst.isNoLongerPlain()
            for index in 0..<burst.count { policy.settle(burst[index], checksums) }
        }
        checksums.received(BurstTotals(of: burst))
    }

    /// What the peer takes unfinished, asked at burst time.
    @_noLocks
    public func capabilities() -> TransmitCapabilities {
        switch driver {
        case .tap: .everything
        case .eth(let queue): queue.capabilities()
        case .vhost(let queue): queue.capabilities()
        case .memory(let queue): unsafe queue.pointee.capabilities
        }
    }

    /// For housekeeping: asks again what seldom changes.
    @_noLocks
    public func refresh() {
        if case .eth(let queue) = driver { queue.refresh() }
    }

    /// Last touch before ``transmit(_:_:_:)``; nil where it cannot leave here, which was counted.
    @_noLocks
    public func prepare(_ packet: consuming Packet, _ memory: PacketMemory, _ counters: PortCounters) -> Packet? {
        switch driver {
        case .eth(let queue): queue.prepare(packet, memory, counters)
        case .vhost(let queue): queue.prepare(packet, memory, counters)
        case .tap, .memory: packet
        }
    }

    /// True if a plain burst of packets up to `longest` bytes needs no ``prepare(_:_:_:)``.
    @_noLocks
    public func takesPlain(longest: Int) -> Bool {
        switch driver {
        case .eth(let queue): queue.takesPlain(longest: longest)
        case .tap, .vhost, .memory: true
        }
    }

    /// Sends the burst and empties it; what cannot be sent is dropped and counted.
    @_noLocks
    public func transmit(_ burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        switch driver {
        case .tap(let queue): unsafe queue.pointee.transmit(&burst, counters, checksums)
        case .eth(let queue): queue.transmit(&burst, counters, checksums)
        case .vhost(let queue): queue.transmit(&burst, counters, checksums)
        case .memory(let queue): unsafe queue.pointee.transmit(&burst, counters, checksums)
        }
    }
}
