import CDPDK
import CLinux
import Wire

/// The one place where drivers' words about checksums become a ``ChecksumState`` and back: DPDK's mbuf
/// flags on one side, the virtio header on the other (checksum contract, section 2).
enum StateMapping {
    enum Arrival {
        case state(ChecksumState)
        case drop(DropReason)
    }

    // MARK: virtio header (tap)

    /// virtio 1.2, 5.1.6: start and offset are as given, so they are believed only within the frame.
    @_noLocks
    static func arrival(of packet: borrowing Packet, _ header: apus_vnet_header) -> Arrival {
        let isSuperframe = header.gso_type & ~UInt8(APUS_GSO_ECN) != 0
        guard header.flags & UInt8(APUS_VNET_NEEDS_CSUM) != 0 else {
            if isSuperframe { return .drop(.badSuperframe) }
            let isValid = header.flags & UInt8(APUS_VNET_DATA_VALID) != 0
            return .state(isValid ? verified(packet) : .none)
        }
        guard Int(header.csum_start) &+ Int(header.csum_offset) &+ 2 <= packet.length || Planted.breaks(.checksumPlace) else {
            return .drop(.badChecksumPlace)
        }
        let headers = packet.headers(isSuperframe: isSuperframe)
        let isKnown = headers.hasKnownChecksum && headers.l4 == Int(header.csum_start)
            && headers.checksumOffset == Int(header.csum_offset)
            && acceptSeed(packet, headers, isSuperframe: isSuperframe)
        guard isKnown else {
            if isSuperframe { return .drop(.badSuperframe) }
            return .state(.opaque(start: header.csum_start, offset: header.csum_offset))
        }
        let state = ChecksumState.known(start: header.csum_start, offset: header.csum_offset)
        guard isSuperframe else { return .state(state) }
        let cut = header.gso_type & ~UInt8(APUS_GSO_ECN)
        let isDatagrams = cut == UInt8(APUS_GSO_UDP_L4)
        let isRightKind = headers.transport == .udp ? isDatagrams || cut == UInt8(APUS_GSO_UDP)
            : cut == UInt8(APUS_GSO_TCPV4) || cut == UInt8(APUS_GSO_TCPV6)
        guard isRightKind else { return .drop(.badSuperframe) }
        return superframe(state, headers, size: header.gso_size, udp: isDatagrams ? .udpDatagrams : .udpFragment,
                          congestion: header.gso_type & UInt8(APUS_GSO_ECN) != 0)
    }

    /// What a virtio receiver is told. The header is complete but for `buffers`.
    @_noLocks
    static func header(for state: ChecksumState) -> apus_vnet_header {
        var header = apus_vnet_header()
        guard state.isPartial else { return header }
        header.flags = UInt8(APUS_VNET_NEEDS_CSUM)
        header.csum_start = state.start
        header.csum_offset = state.offset
        guard state.isSuperframe else { return header }
        header.gso_type = state.segmentation.rawValue | (state.hasCongestionBit ? UInt8(APUS_GSO_ECN) : 0)
        header.gso_size = state.segmentSize
        header.header_length = state.start &+ (state.offset == 6 ? 8 : 20)
        return header
    }

    // MARK: mbuf flags (vhost, virtio)

    /// DPDK keeps no start and offset: the place is the one the parser finds.
    @_noLocks
    static func arrival(of packet: borrowing Packet) -> Arrival {
        let flags = unsafe apus_mbuf_flags(packet.mbuf)
        let isSuperframe = flags & apus_flag_rx_lro != 0
        let l4 = flags & apus_flag_rx_l4_mask
        guard l4 == apus_flag_rx_l4_partial else {
            if isSuperframe { return l4 == apus_flag_rx_l4_good ? merged(packet) : .drop(.badSuperframe) }
            if l4 == apus_flag_rx_l4_good { return .state(verified(packet)) }
            return .state(l4 == apus_flag_rx_l4_bad ? .bad : .none)
        }
        let headers = packet.headers(isSuperframe: isSuperframe)
        // A transport the parser does not reach is not one that vhost found either: nothing says where to sum.
        guard headers.transport != .other else { return .drop(isSuperframe ? .badSuperframe : .badChecksumPlace) }
        let start = UInt16(truncatingIfNeeded: headers.l4)
        let offset = UInt16(truncatingIfNeeded: headers.checksumOffset)
        guard headers.hasKnownChecksum, acceptSeed(packet, headers, isSuperframe: isSuperframe) else {
            return isSuperframe ? .drop(.badSuperframe) : .state(.opaque(start: start, offset: offset))
        }
        let state = ChecksumState.known(start: start, offset: offset)
        guard isSuperframe else { return .state(state) }
        // vhost's word for UDP is VIRTIO_NET_HDR_GSO_UDP (lib/vhost/virtio_net.c, 22.11).
        return unsafe superframe(state, headers, size: apus_mbuf_segment_size(packet.mbuf), udp: .udpFragment,
                                 congestion: false)
    }

    /// A NIC joined verified TCP segments. What it left in the field differs from driver to driver (mlx5 the sum over
    /// all, bnxt the first segment's), so the field is seeded from the headers.
    @_noLocks
    private static func merged(_ packet: borrowing Packet) -> Arrival {
        let headers = packet.headers(isSuperframe: true)
        guard headers.hasKnownChecksum, headers.transport == .tcp else { return .drop(.badSuperframe) }
        let state = ChecksumState.known(start: UInt16(truncatingIfNeeded: headers.l4), offset: 16)
        unsafe packet.data.storeMemoryOrder16(headers.pseudoHeaderSum(UnsafeRawPointer(packet.data)).folded, headers.checksumField)
        return unsafe superframe(state, headers, size: apus_mbuf_segment_size(packet.mbuf), udp: .none, congestion: false)
    }

    /// Other drivers say "both bits" of quite different things (net_tap: UDP without a checksum; hinic: an error), so
    /// it means nothing there. A superframe that a NIC joined and verified becomes unfinished, from its headers.
    @_noLocks
    static func arrivalFromDevice(_ packet: borrowing Packet) -> Arrival {
        let flags = unsafe apus_mbuf_flags(packet.mbuf)
        let l4 = flags & apus_flag_rx_l4_mask
        if l4 == apus_flag_rx_l4_partial, Planted.breaks(.bothBitsOfDevices) { return arrival(of: packet) }
        guard flags & apus_flag_rx_lro != 0 else {
            if l4 == apus_flag_rx_l4_good { return .state(verified(packet)) }
            return .state(l4 == apus_flag_rx_l4_bad ? .bad : .none)
        }
        return l4 == apus_flag_rx_l4_good || Planted.breaks(.mergedUntrusted) ? merged(packet) : .drop(.badSuperframe)
    }

    /// True if the vhost library, or the virtio driver, has completed this packet on its own: it looked at the headers (the type is
    /// set) and says nothing about the checksum.
    @_noLocks
    static func wasCompletedByDriver(_ packet: borrowing Packet) -> Bool {
        guard unsafe apus_mbuf_packet_type(packet.mbuf) != 0 else { return false }
        let flags = unsafe apus_mbuf_flags(packet.mbuf)
        return flags & (apus_flag_rx_l4_mask | apus_flag_rx_lro) == apus_flag_rx_l4_unknown
    }

    /// Sets the flags and lengths a transmitting driver reads. Partial states are known here: opaque ones
    /// have no words in DPDK.
    @_noLocks
    static func setTransmitFlags(_ packet: borrowing Packet, _ headers: Headers) {
        let state = packet.state
        guard state.isPartial else {
            unsafe apus_mbuf_set_offload(packet.mbuf, 0, 0, 0, 0, 0)
            return
        }
        var flags = headers.network == .ipv6 ? apus_flag_tx_ipv6 : apus_flag_tx_ipv4
        flags |= headers.transport == .udp ? apus_flag_tx_udp : apus_flag_tx_tcp
        if state.segmentation == .udpDatagrams { flags |= apus_flag_tx_udp_segments }
        else if state.isSuperframe { flags |= apus_flag_tx_tso }
        unsafe apus_mbuf_set_offload(packet.mbuf, flags, UInt16(truncatingIfNeeded: headers.l3),
                                     UInt16(truncatingIfNeeded: headers.l4 &- headers.l3),
                                     UInt16(truncatingIfNeeded: headers.transportHeaderLength), state.segmentSize)
    }

    // MARK: Shared

    /// A verified checksum counts only where its place is certain: unfragmented TCP, or UDP that has one.
    @_noLocks
    private static func verified(_ packet: borrowing Packet) -> ChecksumState {
        let headers = packet.headers(isSuperframe: false)
        if headers.isFragment, Planted.breaks(.fragmentKnown) { return .unnecessary(start: 34, offset: 6) }
        guard headers.hasKnownChecksum else { return .none }
        if headers.transport == .udp, unsafe UnsafeRawPointer(packet.data).memoryOrder16(headers.checksumField) == 0,
           !Planted.breaks(.goodWithoutChecksum) { return .none }
        return .unnecessary(start: UInt16(truncatingIfNeeded: headers.l4),
                            offset: UInt16(truncatingIfNeeded: headers.checksumOffset))
    }

    /// True if the field holds the pseudo-header sum. A superframe's may come without the length, and gets it.
    @_noLocks
    private static func acceptSeed(_ packet: borrowing Packet, _ headers: Headers, isSuperframe: Bool) -> Bool {
        let data = unsafe UnsafeRawPointer(packet.data)
        let field = unsafe data.memoryOrder16(headers.checksumField)
        let seed = unsafe headers.pseudoHeaderSum(data).folded
        if field == seed { return true }
        guard isSuperframe, unsafe field == headers.pseudoHeaderSumWithoutLength(data).folded else { return false }
        if !Planted.breaks(.superframeLength) { unsafe packet.data.storeMemoryOrder16(seed, headers.checksumField) }
        return true
    }

    /// Segments one superframe may become. Linux makes none smaller than 48 bytes (TCP_MIN_SND_MSS), so 64 KB are
    /// at most 1366; without a limit one frame of a hostile peer becomes 64 000.
    static var segmentCountMax: Int { 1400 }

    /// - Parameter udp: how UDP is cut, where it is UDP.
    @_noLocks
    private static func superframe(_ state: ChecksumState, _ headers: Headers, size: UInt16,
                                   udp: ChecksumState.Segmentation, congestion: Bool) -> Arrival {
        let isFragments = headers.transport == .udp && udp == .udpFragment
        // UFO cuts the datagram, its header included, at multiples of 8 (RFC 791 section 3.2).
        let payload = headers.transportLength &- (isFragments ? 0 : headers.transportHeaderLength)
        guard size > 0, !isFragments || size & 7 == 0,
              payload <= Int(size) &* segmentCountMax || Planted.breaks(.segmentCount) else {
            return .drop(.badSuperframe)
        }
        // One that fits a segment is an ordinary packet.
        if payload <= Int(size) { return .state(state) }
        let kind: ChecksumState.Segmentation = headers.transport == .udp ? udp : headers.network == .ipv6 ? .tcp6 : .tcp4
        return .state(state.superframe(kind, segmentSize: size, congestion: congestion))
    }
}
