import DPDK
import Wire

/// Makes a packet fit to leave by a port: checksum contract, section 6.
///
/// Reads: state, headers, what the peer takes. Writes: checksum fields, states; makes segments.
/// Next: the port's departures.
struct Egress {
    let memory: PacketMemory
    let checksums: ChecksumCounters

    @_noLocks
    func send(_ packet: consuming Packet, by slot: inout PortSlot) {
        // Only trusted packets are written to on their way out.
        guard packet.isExclusive || !packet.state.isTrusted else { return sendOwned(packet, by: &slot) }
        sendExclusive(packet, by: &slot)
    }

    /// A flooded packet: its headers become its own first.
    @_noLocks
    private func sendOwned(_ packet: consuming Packet, by slot: inout PortSlot) {
        guard let own = packet.makeExclusive(headerBytes: VLANTag.headerBytes, memory: memory) else {
            return slot.counters.dropped(.noMemory)
        }
        sendExclusive(own, by: &slot)
    }

    @_noLocks
    private func sendExclusive(_ packet: consuming Packet, by slot: inout PortSlot) {
        let state = packet.state
        #if APUS_PLANTED
        Planted.spoilSeed(packet)
        #endif
        switch state.kind {
        case .none, .bad:
            // Cutting one would hide whatever is wrong with it.
            if state.isSuperframe { return slot.counters.dropped(.cannotSegment) }
        case .unnecessary:
            if slot.delivery.reseedsVerified, !slot.delivery.isFull { reseed(packet, slot.capabilities) }
        case .known, .opaque:
            let headers = packet.headers()
            let isExpressible = Self.isExpressible(state, headers, slot.capabilities)
            if state.isSuperframe, !(isExpressible && slot.capabilities.takesSuperframe(state)) {
                return segment(packet, headers, &slot)
            }
            if !isExpressible { Completion.complete(packet, .egress, checksums) }
        }
        slot.append(packet, memory, checksums)
    }

    /// Whether the port can be told "sum from start, store at offset" about this packet.
    @_noLocks
    static func isExpressible(_ state: ChecksumState, _ headers: Headers, _ port: TransmitCapabilities) -> Bool {
        guard state.kind == .known else { return port.opaque }
        // virtio and Linux sum to the end of the frame, so nothing may stand behind the datagram; mbuf has
        // 7 bits for the link layer's length and 9 for IP's.
        return port.known && headers.hasKnownChecksum && headers.l4 == Int(state.start) && headers.trailingBytes == 0
            && headers.l3 < 128 && headers.l4 &- headers.l3 < 512
    }

    /// Marks a verified packet unfinished: the receiver then need not verify it again.
    @_noLocks
    private func reseed(_ packet: borrowing Packet, _ port: TransmitCapabilities) {
        let state = packet.state
        let headers = packet.headers()
        let seeded = state.reseeded(start: state.start, offset: state.offset)
        guard packet.isExclusive, headers.l4 == Int(state.start), Self.isExpressible(seeded, headers, port) else { return }
        if headers.transport == .udp, unsafe UnsafeRawPointer(packet.data).memoryOrder16(headers.checksumField) == 0 { return }
        _ = Completion.seed(packet, headers, checksums)
        packet.state = seeded
    }

    // MARK: Segmentation

    /// Cuts a TCP superframe; each segment leaves unfinished where the port takes that, else finished.
    @_noLocks
    private func segment(_ packet: consuming Packet, _ headers: Headers, _ slot: inout PortSlot) {
        let state = packet.state
        guard state.kind == .known, headers.transport == .tcp, headers.hasKnownChecksum, headers.l4 == Int(state.start),
              headers.payload <= packet.dataLength else {
            return slot.counters.dropped(.cannotSegment)
        }
        let cut = Segmentation(headers, payload: headers.transportLength &- headers.transportHeaderLength,
                               segmentSize: Int(state.segmentSize), hasCongestionBit: state.hasCongestionBit)
        for number in 0..<cut.count {
            guard let segment = memory.allocate(bytes: cut.frameLength(number)) else {
                // The superframe left as `number` packets; the rest of it is one more that is dropped.
                slot.counters.dropped(.noMemory)
                slot.counters.add(.created, number)
                return
            }
            unsafe segment.setWindow(start: segment.data, count: cut.frameLength(number))
            cut.write(number, of: packet, into: segment)
            finish(segment, state.segmented, slot.capabilities)
            slot.append(segment, memory, checksums)
        }
        slot.counters.add(.created, cut.count &- 1)
    }

    @_noLocks
    private func finish(_ segment: borrowing Packet, _ state: ChecksumState, _ port: TransmitCapabilities) {
        let headers = segment.headers(isSuperframe: false)
        let data = unsafe segment.data
        unsafe data.storeMemoryOrder16(headers.pseudoHeaderSum(UnsafeRawPointer(data)).folded, headers.checksumField)
        segment.state = state
        #if APUS_PLANTED
        Planted.spoilSeed(segment)
        #endif
        if !Self.isExpressible(state, headers, port) { Completion.complete(segment, .segment, checksums) }
    }
}
