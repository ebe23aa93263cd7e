import CDPDK
import Wire

/// One receive and one transmit queue of a guest, as an lcore sees them: by the vhost library itself, without a device. Trivial.
@safe public struct VhostQueue {
    let shared: UnsafeMutablePointer<apus_vhost_port>
    let receiveQueue: UInt16
    let transmitQueue: UInt16
    /// Other lcores send by the same queue.
    let isShared: Bool

    @_noLocks
    public func receive(into burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        unsafe burst.receive(fromGuestOf: shared, queue: receiveQueue)
        burst.arrived(from: .virtio, counters, checksums)
        // More waits, and its bytes take longer than its descriptors.
        if burst.isFull, burst.survey.bytes >= burst.count &* 256 {
            unsafe apus_vhost_look_ahead(shared, receiveQueue, UInt16(truncatingIfNeeded: burst.count))
        }
    }

    /// What the guest takes, asked now: what it negotiated.
    @_noLocks
    public func capabilities() -> TransmitCapabilities {
        let features = unsafe apus_vhost_features(shared)
        // virtio 1.2, 5.1.3: GUEST_CSUM 1, GUEST_TSO4 7, GUEST_TSO6 8.
        let known = features & 1 &<< 1 != 0
        return TransmitCapabilities(known: known, tcp4: known && features & 1 &<< 7 != 0,
                                    tcp6: known && features & 1 &<< 8 != 0)
    }

    /// Makes a packet ready for ``transmit(_:_:_:)``.
    /// - Returns: nil where there is no memory for that, which was counted; the packet is then freed.
    @_noLocks
    public func prepare(_ packet: consuming Packet, _ memory: PacketMemory, _ counters: PortCounters) -> Packet? {
        if let ready = keepingSeed(packet, memory.small) { return ready }
        counters.dropped(.noMemory)
        return nil
    }

    /// vhost's enqueue rewrites the seed of every superframe without its length (DPDK 22.11,
    /// rte_net_intel_cksum_prepare): a guest that forwards it then sends wrong checksums only. Where the
    /// first segment ends inside the headers it gives up and everything arrives as written. Can go when
    /// the library stops rewriting.
    @_noLocks
    private func keepingSeed(_ packet: consuming Packet, _ memory: PacketAllocator) -> Packet? {
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
        let totals = BurstTotals(of: burst)
        let sent = send(&burst, counters)
        burst.left(sent, of: totals, counters, checksums)
    }

    @_noLocks
    private func send(_ burst: inout Burst, _ counters: PortCounters) -> Int {
        // A guest enables as many queues as it likes.
        let queue = unsafe apus_vhost_queue_is_enabled(shared, transmitQueue) ? transmitQueue : 0
        guard isShared else { return unsafe burst.transmit(toGuestOf: shared, queue: queue) }
        let lock = unsafe apus_vhost_lock(shared, queue)
        counters.add(.sharedBursts, 1)
        if unsafe !apus_queue_lock(lock) { counters.add(.sharedWaits, 1) }
        let sent = unsafe burst.transmit(toGuestOf: shared, queue: queue)
        unsafe apus_queue_unlock(lock)
        return sent
    }
}
