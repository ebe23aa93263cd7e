import Wire

/// A port made of two arrays: the real loop runs over it without a device.
public struct MemoryQueue: ~Copyable {
    /// What the port will receive, oldest first; states are set by whoever fills it.
    public var arrivals: Burst
    /// What was sent.
    public var departures: Burst
    public var capabilities: TransmitCapabilities

    public init(capacity: Int, capabilities: TransmitCapabilities) {
        arrivals = Burst(capacity: capacity)
        departures = Burst(capacity: capacity)
        self.capabilities = capabilities
    }

    @_noLocks
    mutating func receive(into burst: inout Burst, _ counters: PortCounters) {
        let count = min(arrivals.count, burst.capacity)
        var areUnknown = true
        for index in 0..<count {
            let packet = arrivals.take(index)
            counters.add(.receivedPackets, 1)
            counters.add(.receivedBytes, packet.length)
            areUnknown = areUnknown && packet.state == .none
            if packet.state.isSuperframe { counters.add(.receivedSuperframes, 1) }
            burst.append(packet)
        }
        for index in count..<arrivals.count { arrivals.keep(arrivals.take(index), at: index &- count) }
        arrivals.truncate(to: arrivals.count &- count)
        if areUnknown { burst.takeSurvey() }
    }

    @_noLocks
    mutating func transmit(_ burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        for index in 0..<burst.count {
            let packet = burst.take(index)
            guard !departures.isFull else {
                counters.dropped(.transmitFull, packet)
                continue
            }
            counters.transmitted(packet.length, packet.state)
            checksums.transmitted(packet.state)
            departures.append(packet)
        }
        burst.truncate(to: 0)
    }
}
