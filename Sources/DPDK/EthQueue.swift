import CDPDK
import Wire

/// One receive and transmit queue of a DPDK device, as its lcore sees it. Trivial.
public struct EthQueue {
    let port: UInt16

    @_noLocks
    public func receive(into burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        burst.receive(port: port, queue: 0)
        var kept = 0
        for index in 0..<burst.count {
            let packet = burst.take(index)
            counters.add(.receivedPackets, 1)
            counters.add(.receivedBytes, packet.length)
            guard packet.dataLength >= 14 else {
                counters.dropped(.tooShort)
                continue
            }
            switch StateMapping.arrival(of: packet) {
            case .drop(let reason):
                counters.dropped(reason)
            case .state(let state):
                packet.state = state
                if state.isSuperframe { counters.add(.receivedSuperframes, 1) }
                if StateMapping.wasCompletedByDriver(packet) { checksums.full(.driver, bytes: packet.length) }
                burst.keep(packet, at: kept)
                kept &+= 1
            }
        }
        burst.truncate(to: kept)
    }

    /// What the vhost peer negotiated, asked now: the event comes after the queues are open.
    @_noLocks
    public func capabilities() -> TransmitCapabilities {
        var features: UInt64 = 0
        guard unsafe apus_vhost_features(port, &features) else { return .nothing }
        // virtio 1.2, 5.1.3: GUEST_CSUM 1, GUEST_TSO4 7, GUEST_TSO6 8.
        let known = features & 1 &<< 1 != 0
        return TransmitCapabilities(known: known, tcp4: known && features & 1 &<< 7 != 0,
                                    tcp6: known && features & 1 &<< 8 != 0)
    }

    /// Makes a packet ready for ``transmit(_:_:_:)``: flags, and the split that keeps vhost's hands off.
    ///
    /// vhost's enqueue rewrites the seed of every superframe without its length (DPDK 22.11,
    /// rte_net_intel_cksum_prepare): a guest that forwards it then sends wrong checksums only. Where the
    /// first segment ends inside the headers it gives up and everything arrives as written. Can go when
    /// the library stops rewriting.
    /// - Returns: nil where there was no memory for the split; the packet is then freed.
    @_noLocks
    public func prepare(_ packet: consuming Packet, _ memory: PacketAllocator) -> Packet? {
        guard packet.state.isPartial else {
            StateMapping.setTransmitFlags(packet, Headers())
            return packet
        }
        let headers = packet.headers()
        let state = packet.state
        // Small packets it seeds anew rightly, but from the IPv6 header alone; and it writes, whoever else holds the bytes.
        var needsSplit = state.isSuperframe && !Planted.breaks(.vhostSeed) || headers.hasExtensions || !packet.isExclusive
        #if APUS_PLANTED
        // A planted wrong seed must get past it.
        if apus_planted_wrong_seed() { needsSplit = true }
        #endif
        guard needsSplit else {
            StateMapping.setTransmitFlags(packet, headers)
            return packet
        }
        guard let head = memory.allocate() else { return nil }
        unsafe head.setWindow(start: head.data, count: headers.l4)
        unsafe apus_copy(head.data, packet.data, headers.l4)
        unsafe packet.setWindow(start: packet.data + headers.l4, count: packet.dataLength &- headers.l4)
        guard head.chain(packet) else { return nil }
        head.state = state
        StateMapping.setTransmitFlags(head, headers)
        return head
    }

    /// Hands the burst over; what the ring does not take is dropped and counted.
    @_noLocks
    public func transmit(_ burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        var totals = Totals(of: burst)
        let sent = burst.transmit(port: port, queue: 0)
        if burst.count > 0 {
            totals.subtract(Totals(of: burst))
            counters.dropped(.transmitFull, burst.count)
            burst.drop()
        }
        counters.transmitted(packets: sent, bytes: totals.bytes, superframes: totals.superframes)
        checksums.transmitted(.none, totals.none)
        checksums.transmitted(.bad, totals.bad)
        checksums.transmitted(.unnecessary, totals.unnecessary)
        checksums.transmitted(.partial, totals.partial)
    }

    /// What a driver takes away can no longer be asked, so it is counted before.
    private struct Totals {
        var bytes = 0, superframes = 0, none = 0, bad = 0, unnecessary = 0, partial = 0

        @_noLocks init(of burst: borrowing Burst) {
            for index in 0..<burst.count {
                bytes &+= burst[index].length
                let state = burst[index].state
                if state.isSuperframe { superframes &+= 1 }
                switch state.kind {
                case .none: none &+= 1
                case .bad: bad &+= 1
                case .unnecessary: unnecessary &+= 1
                case .known, .opaque: partial &+= 1
                }
            }
        }

        @_noLocks mutating func subtract(_ other: Totals) {
            bytes &-= other.bytes
            superframes &-= other.superframes
            none &-= other.none
            bad &-= other.bad
            unnecessary &-= other.unnecessary
            partial &-= other.partial
        }
    }
}
