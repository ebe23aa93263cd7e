import CDPDK
import Wire

/// One receive and one transmit queue of a DPDK device, as an lcore sees them. Trivial.
@safe public struct EthQueue {
    /// What the drivers' words mean differs; how they are to be spoken to, too.
    public enum Driver: Sendable {
        /// net_vhost: the peer is a guest, or virtio-user.
        case vhost
        /// net_virtio and virtio-user: the peer is a hypervisor, or a vhost-user forwarder.
        case virtio
        /// Anything else: hardware, or a driver without offloads.
        case device

        init(named name: String) {
            self = switch name {
            case "net_vhost": .vhost
            case "net_virtio", "net_virtio_user": .virtio
            default: .device
            }
        }
    }

    let shared: UnsafeMutablePointer<apus_eth_port>
    let driver: Driver
    let receiveQueue: UInt16
    let transmitQueue: UInt16
    /// Other lcores send by the same queue.
    let isShared: Bool
    /// The driver reads the first segment only, and believes it is all.
    let isLinearOnly: Bool
    /// Bytes of the longest frame that the device carries.
    let lengthMax: Int

    @_noLocks
    public func receive(into burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        guard unsafe apus_eth_is_open(shared) else { return }
        if driver == .vhost { unsafe burst.receive(fromGuestOf: shared, queue: receiveQueue) }
        else { unsafe burst.receive(port: apus_eth_number(shared), queue: receiveQueue) }
        guard burst.count > 0 else { return }
        burst.takeSurvey()
        // More waits, and its bytes take longer than its descriptors.
        if driver == .vhost, burst.isFull, burst.survey.bytes >= burst.count &* 256 {
            unsafe apus_vhost_look_ahead(shared, receiveQueue, UInt16(truncatingIfNeeded: burst.count))
        }
        counters.add(.receivedPackets, burst.count)
        counters.add(.receivedBytes, burst.survey.bytes)
        if !burst.survey.isPlain { mapStates(&burst, counters, checksums) }
    }

    /// Packet by packet, where a driver said something of at least one.
    @_noLocks
    private func mapStates(_ burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        var kept = 0
        for index in 0..<burst.count {
            guard let packet = accept(burst.take(index), counters, checksums) else { continue }
            burst.keep(packet, at: kept)
            kept &+= 1
        }
        burst.truncate(to: kept)
    }

    /// A packet as the driver handed it over, with its state; nil where it is dropped, which was counted.
    @_noLocks
    func accept(_ packet: consuming Packet, _ counters: PortCounters, _ checksums: ChecksumCounters) -> Packet? {
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

    /// What the peer takes, asked now: of a vhost peer what was negotiated, of others what the device offers.
    @_noLocks
    public func capabilities() -> TransmitCapabilities {
        guard unsafe apus_eth_is_open(shared) else { return .nothing }
        guard driver == .vhost else {
            var offered = unsafe Self.offered(apus_eth_offloads(shared))
            // rte_eth_tx_prepare seeds anew from the IPv6 header alone.
            offered.extensions = driver == .virtio
            return offered
        }
        let features = unsafe apus_vhost_features(shared)
        // virtio 1.2, 5.1.3: GUEST_CSUM 1, GUEST_TSO4 7, GUEST_TSO6 8.
        let known = features & 1 &<< 1 != 0
        return TransmitCapabilities(known: known, tcp4: known && features & 1 &<< 7 != 0,
                                    tcp6: known && features & 1 &<< 8 != 0)
    }

    @_noLocks
    private static func offered(_ offloads: UInt64) -> TransmitCapabilities {
        let known = offloads & apus_transmit_checksum_offloads == apus_transmit_checksum_offloads
        let tcp = known && offloads & apus_transmit_tso_offload != 0 && offloads & apus_transmit_multi_segment_offload != 0
        return TransmitCapabilities(known: known, tcp4: tcp, tcp6: tcp)
    }

    /// Asks the device again what it offers. For housekeeping: about 100 ns.
    @_noLocks
    public func refresh() {
        guard driver == .virtio, unsafe apus_eth_is_open(shared) else { return }
        unsafe apus_eth_refresh(shared)
    }

    /// True if a plain burst may leave as it is, without ``prepare(_:_:_:)``.
    @_noLocks
    func takesPlain(longest: Int) -> Bool { driver != .device || longest <= lengthMax && !isLinearOnly }

    /// Makes a packet ready for ``transmit(_:_:_:)``: flags, and what the driver wants of the bytes.
    /// - Returns: nil where it cannot leave here, with the reason; the packet is then freed.
    @_noLocks
    public func prepare(_ packet: consuming Packet, _ memory: PacketMemory, _ counters: PortCounters) -> Packet? {
        switch driver {
        case .vhost:
            if let ready = prepareForVhost(packet, memory.small) { return ready }
            counters.dropped(.noMemory)
            return nil
        case .virtio:
            StateMapping.setTransmitFlags(packet, packet.state.isPartial ? packet.headers() : Headers())
            return packet
        case .device:
            return prepareForDevice(packet, memory, counters)
        }
    }

    /// vhost's enqueue rewrites the seed of every superframe without its length (DPDK 22.11,
    /// rte_net_intel_cksum_prepare): a guest that forwards it then sends wrong checksums only. Where the
    /// first segment ends inside the headers it gives up and everything arrives as written. Can go when
    /// the library stops rewriting.
    @_noLocks
    private func prepareForVhost(_ packet: consuming Packet, _ memory: PacketAllocator) -> Packet? {
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

    /// Hardware wants a superframe's seed without its length (checksum contract, section 2), and some of it wants
    /// more, which `rte_eth_tx_prepare` knows; drivers of sockets and files read one segment.
    @_noLocks
    private func prepareForDevice(_ arrived: consuming Packet, _ memory: PacketMemory, _ counters: PortCounters) -> Packet? {
        let state = arrived.state
        guard state.isSuperframe || arrived.length <= lengthMax else {
            counters.dropped(.tooLong, arrived)
            return nil
        }
        guard state.isPartial else {
            StateMapping.setTransmitFlags(arrived, Headers())
            guard isLinearOnly, !arrived.isLinear else { return arrived }
            guard let copy = memory.copy(arrived) else {
                counters.dropped(.noMemory, arrived)
                return nil
            }
            return copy
        }
        guard let packet = arrived.owned(first: 256, memory.small) else {
            counters.dropped(.noMemory)
            return nil
        }
        let headers = packet.headers()
        StateMapping.setTransmitFlags(packet, headers)
        if state.isSuperframe {
            let data = unsafe packet.data
            unsafe data.storeMemoryOrder16(headers.pseudoHeaderSumWithoutLength(UnsafeRawPointer(data)).folded, headers.checksumField)
        }
        return packet
    }

    /// Hands the burst over; what the ring does not take is dropped and counted.
    @_noLocks
    public func transmit(_ burst: inout Burst, _ counters: PortCounters, _ checksums: ChecksumCounters) {
        guard unsafe apus_eth_is_open(shared) else {
            counters.dropped(.transmitFull, burst)
            return burst.drop()
        }
        // What a driver takes away can no longer be asked, so it is counted before.
        var totals = BurstTotals(of: burst)
        let sent = send(&burst, counters)
        if burst.count > 0 {
            totals.subtract(BurstTotals(of: burst))
            counters.dropped(.transmitFull, burst)
            burst.drop()
        }
        counters.transmitted(packets: sent, bytes: totals.bytes, superframes: totals.superframes)
        checksums.transmitted(totals)
    }

    @_noLocks
    private func send(_ burst: inout Burst, _ counters: PortCounters) -> Int {
        var queue = transmitQueue
        if driver == .vhost, queue > 0, unsafe !apus_eth_queue_is_enabled(shared, queue) { queue = 0 }
        guard isShared else { return hand(over: &burst, queue) }
        counters.add(.sharedBursts, 1)
        if unsafe !apus_eth_lock(shared, queue) { counters.add(.sharedWaits, 1) }
        let sent = hand(over: &burst, queue)
        unsafe apus_eth_unlock(shared, queue)
        return sent
    }

    @_noLocks
    private func hand(over burst: inout Burst, _ queue: UInt16) -> Int {
        guard driver == .vhost else { return unsafe burst.transmit(port: apus_eth_number(shared), queue: queue, prepares: driver == .device) }
        return unsafe burst.transmit(toGuestOf: shared, queue: queue)
    }
}
