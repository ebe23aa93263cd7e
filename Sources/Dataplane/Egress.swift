import DPDK
import Wire

/// Makes a packet fit to leave by a port: checksum contract, section 6.
///
/// Reads: state, headers, what the peer takes. Writes: checksum fields, states; makes segments.
/// Next: the port's departures.
struct Egress {
    let memory: PacketMemory
    let checksums: ChecksumCounters

    /// Bytes of a frame that hold its headers, as a rule: where the first segment is shorter they are brought together.
    private static var headerBytes: Int { 256 }

    @_noLocks
    func send(_ packet: consuming Packet, by slot: inout PortSlot) {
        let state = packet.state
        #if APUS_PLANTED
        Planted.spoilSeed(packet)
        #endif
        // Cutting an ordinary packet is a router's work. 14 is the least a link layer takes.
        if packet.length &- 14 > slot.delivery.mtu, !state.isSuperframe, isTooLong(packet, slot.delivery.mtu) {
            return slot.counters.dropped(.largerThanMTU, packet)
        }
        switch state.kind {
        case .none, .bad:
            // Cutting one would hide whatever is wrong with it.
            if state.isSuperframe, !Planted.breaks(.untrustedCut) { return slot.counters.dropped(.cannotSegment, packet) }
        case .unnecessary:
            if slot.delivery.reseedsVerified, !slot.delivery.isFull { reseed(packet, slot.capabilities) }
        case .known, .opaque:
            return sendPartial(packet, by: &slot)
        }
        slot.append(packet, memory, checksums)
    }

    @_noLocks @inline(never)
    private func isTooLong(_ packet: borrowing Packet, _ mtu: Int) -> Bool {
        packet.length &- packet.headers().l3 > mtu && !Planted.breaks(.longFrame)
    }

    @_noLocks
    private func sendPartial(_ arrived: consuming Packet, by slot: inout PortSlot) {
        let state = arrived.state
        var packet = arrived
        if packet.dataLength < Self.headerBytes, !packet.isLinear {
            guard let together = own(packet) else { return slot.counters.dropped(.noMemory) }
            packet = together
        }
        let headers = packet.headers()
        let isExpressible = Self.isExpressible(state, headers, slot.capabilities)
        if state.isSuperframe { return sendSuperframe(packet, headers, isExpressible: isExpressible, &slot) }
        guard isExpressible else {
            guard let packet = own(packet) else { return slot.counters.dropped(.noMemory) }
            Completion.complete(packet, .egress, checksums)
            return slot.append(packet, memory, checksums)
        }
        slot.append(packet, memory, checksums)
    }

    /// The packet with its headers, and the field of its state, in a first segment nobody else holds.
    @_noLocks
    private func own(_ packet: consuming Packet) -> Packet? {
        let count = max(Self.headerBytes, packet.state.field &+ 2)
        return packet.owned(first: count, count <= memory.smallBytes ? memory.small : memory.large)
    }

    @_noLocks
    private func sendSuperframe(_ packet: consuming Packet, _ headers: Headers, isExpressible: Bool,
                                _ slot: inout PortSlot) {
        let state = packet.state
        let isCut = !isExpressible || !slot.capabilities.takesSuperframe(state)
        guard state.kind == .known, headers.hasKnownChecksum, headers.l4 == Int(state.start),
              headers.payload <= packet.dataLength else {
            return slot.counters.dropped(.cannotSegment, packet)
        }
        // Segments are made to fit the peer. TCP is a stream and may be cut anywhere, datagrams may not.
        let isFragments = state.segmentation == .udpFragment
        let room = slot.delivery.mtu &- ((isFragments ? headers.l4 : headers.payload) &- headers.l3)
        var size = Int(state.segmentSize)
        if size > room, !Planted.breaks(.longSegments) {
            guard room >= 8, state.segmentation != .udpDatagrams else { return slot.counters.dropped(.largerThanMTU, packet) }
            size = isFragments ? room & ~7 : room
            packet.state = state.superframe(state.segmentation, segmentSize: UInt16(truncatingIfNeeded: size),
                                            congestion: state.hasCongestionBit)
        }
        guard isCut else { return slot.append(packet, memory, checksums) }
        if isFragments { return fragment(packet, headers, size: size, &slot) }
        segment(packet, headers, size: size, &slot)
    }

    /// Whether the port can be told "sum from start, store at offset" about this packet.
    @_noLocks
    static func isExpressible(_ state: ChecksumState, _ headers: Headers, _ port: TransmitCapabilities) -> Bool {
        guard state.kind == .known else { return port.opaque || Planted.breaks(.opaqueUnasked) }
        // virtio and Linux sum to the end of the frame, so nothing may stand behind the datagram; mbuf has
        // 7 bits for the link layer's length and 9 for IP's.
        return port.known && headers.hasKnownChecksum && headers.l4 == Int(state.start)
            && (headers.trailingBytes == 0 || Planted.breaks(.trailingBytes))
            && headers.l3 < 128 && headers.l4 &- headers.l3 < 512
            && (port.extensions || !headers.hasExtensions || Planted.breaks(.extensionsUnasked))
    }

    /// Marks a verified packet unfinished: the receiver then need not verify it again.
    @_noLocks
    private func reseed(_ packet: borrowing Packet, _ port: TransmitCapabilities) {
        let state = packet.state
        let headers = packet.headers()
        let seeded = state.reseeded(start: state.start, offset: state.offset)
        guard packet.isExclusive || Planted.breaks(.reseedShared), headers.l4 == Int(state.start), Self.isExpressible(seeded, headers, port) else { return }
        if headers.transport == .udp, unsafe UnsafeRawPointer(packet.data).memoryOrder16(headers.checksumField) == 0,
           !Planted.breaks(.reseedWithoutChecksum) { return }
        _ = Completion.seed(packet, headers, checksums)
        packet.state = seeded
        #if APUS_PLANTED
        Planted.spoilSeed(packet)
        #endif
    }

    // MARK: Segmentation

    /// Cuts a superframe of TCP or of datagrams; each segment leaves unfinished where the port takes that, else
    /// finished. `size` is positive.
    @_noLocks
    private func segment(_ packet: consuming Packet, _ headers: Headers, size: Int, _ slot: inout PortSlot) {
        let state = packet.state
        let cut = Segmentation(headers, payload: headers.transportLength &- headers.transportHeaderLength,
                               segmentSize: size, hasCongestionBit: state.hasCongestionBit)
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

    /// Finishes a datagram and cuts it into fragments, which have no checksum of their own. `size` is a positive
    /// multiple of 8.
    @_noLocks
    private func fragment(_ whole: consuming Packet, _ headers: Headers, size: Int, _ slot: inout PortSlot) {
        // An identification of its own would have to be drawn for IPv6; no sender of today asks for it.
        guard headers.network == .ipv4 else { return slot.counters.dropped(.cannotSegment) }
        guard let packet = own(whole) else { return slot.counters.dropped(.noMemory) }
        Completion.complete(packet, .segment, checksums)
        let cut = Fragmentation(headers, size: size)
        for number in 0..<cut.count {
            guard let fragment = memory.allocate(bytes: cut.frameLength(number)) else {
                slot.counters.dropped(.noMemory)
                slot.counters.add(.created, number)
                return
            }
            unsafe fragment.setWindow(start: fragment.data, count: cut.frameLength(number))
            cut.write(number, of: packet, into: fragment)
            slot.append(fragment, memory, checksums)
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
