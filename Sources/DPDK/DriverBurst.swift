import CDPDK
import Wire

/// What all of DPDK's queues do with a burst, after it was received and after it was sent.
extension Burst {
    /// Counts what a driver has filled it with, and gives each packet its state; what cannot be believed is dropped, and counted.
    @_noLocks
    mutating func arrived(from driver: EthQueue.Driver, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        guard count > 0 else { return }
        takeSurvey()
        counters.add(.receivedPackets, count)
        counters.add(.receivedBytes, survey.bytes)
        if !survey.isPlain { mapStates(driver, counters, checksums) }
    }

    /// Packet by packet, where a driver said something of at least one.
    @_noLocks
    private mutating func mapStates(_ driver: EthQueue.Driver, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        var kept = 0
        for index in 0..<count {
            guard let packet = Self.accept(take(index), driver, counters, checksums) else { continue }
            keep(packet, at: kept)
            kept &+= 1
        }
        truncate(to: kept)
    }

    /// A packet as the driver handed it over, with its state; nil where it is dropped, which was counted.
    @_noLocks
    static func accept(_ packet: consuming Packet, _ driver: EthQueue.Driver, _ counters: PortCounters, _ checksums: ChecksumCounters) -> Packet? {
        guard packet.dataLength >= 14 else {
            counters.dropped(.tooShort, packet)
            return nil
        }
        switch driver == .device ? StateMapping.arrivalFromDevice(packet) : StateMapping.arrival(of: packet) {
        case .drop(let reason):
            counters.dropped(reason, packet)
            return nil
        case .state(let state):
            packet.state = state
            if state.isSuperframe { counters.add(.receivedSuperframes, 1) }
            if driver != .device, StateMapping.wasCompletedByDriver(packet) { checksums.full(.driver, bytes: packet.length) }
            return packet
        }
    }

    /// Counts what a driver took, `sent` packets of a burst that had these totals; the rest, which it still holds, is dropped.
    /// What was taken away can no longer be asked.
    @_noLocks
    mutating func left(_ sent: Int, of before: BurstTotals, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        var totals = before
        if count > 0 {
            totals.subtract(BurstTotals(of: self))
            counters.dropped(.transmitFull, self)
            drop()
        }
        counters.transmitted(packets: sent, bytes: totals.bytes, superframes: totals.superframes)
        checksums.transmitted(totals)
    }
}
