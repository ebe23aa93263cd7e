import CDPDK
import Wire

/// One receive and one transmit queue of a DPDK device, as an lcore sees them. Trivial.
@safe public struct EthQueue {
    /// What the drivers' words mean differs; how they are to be spoken to, too.
    public enum Driver: Sendable {
        /// A virtio header's, as net_virtio, virtio-user and the vhost library read it.
        case virtio
        /// Anything else: hardware, or a driver without offloads.
        case device

        init(named name: String) {
            self = switch name {
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
        unsafe burst.receive(port: apus_eth_number(shared), queue: receiveQueue)
        burst.arrived(from: driver, counters, checksums)
    }

    /// What the peer takes, asked now: what the device offers.
    @_noLocks
    public func capabilities() -> TransmitCapabilities {
        guard unsafe apus_eth_is_open(shared) else { return .nothing }
        var offered = unsafe Self.offered(apus_eth_offloads(shared))
        // rte_eth_tx_prepare seeds anew from the IPv6 header alone.
        offered.extensions = driver == .virtio
        return offered
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
        case .virtio:
            StateMapping.setTransmitFlags(packet, packet.state.isPartial ? packet.headers() : Headers())
            return packet
        case .device:
            return prepareForDevice(packet, memory, counters)
        }
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
        let totals = BurstTotals(of: burst)
        let sent = send(&burst, counters)
        burst.left(sent, of: totals, counters, checksums)
    }

    @_noLocks
    private func send(_ burst: inout Burst, _ counters: PortCounters) -> Int {
        guard isShared else { return hand(over: &burst) }
        let lock = unsafe apus_eth_lock(shared, transmitQueue)
        counters.add(.sharedBursts, 1)
        if unsafe !apus_queue_lock(lock) { counters.add(.sharedWaits, 1) }
        let sent = hand(over: &burst)
        unsafe apus_queue_unlock(lock)
        return sent
    }

    @_noLocks
    private func hand(over burst: inout Burst) -> Int {
        unsafe burst.transmit(port: apus_eth_number(shared), queue: transmitQueue, prepares: driver == .device)
    }
}
