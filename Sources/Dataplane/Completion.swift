import DPDK
import Wire

/// Full checksums in software. With ``ReceivePolicy`` the only callers of ``Packet/fullSum(from:count:)`` and its
/// sister for CRC-32C. Each has a cause and is counted.
enum Completion {
    /// Turns a partial packet into a finished one: the sum from start to the end of what the checksum covers,
    /// the seed in the field included.
    ///
    /// A known checksum ends with its datagram; an opaque one with the frame, as virtio and Linux have it.
    @_noLocks
    static func complete(_ packet: borrowing Packet, _ cause: ChecksumCounters.Cause, _ counters: ChecksumCounters) {
        let state = packet.state
        guard state.isPartial else { return }
        var count = packet.length &- Int(state.start)
        if state.kind == .known || Planted.breaks(.opaqueEnd) {
            let headers = packet.headers()
            if headers.l4 == Int(state.start), !Planted.breaks(.trailingBytes) { count = headers.transportLength }
        }
        packet.complete(state, count: count)
        counters.full(cause, bytes: count)
    }

    /// Computes the transport checksum anew from all its bytes. The caller checked ``Headers/hasCertainChecksum``.
    @_noLocks
    static func recompute(_ packet: borrowing Packet, _ headers: Headers, _ cause: ChecksumCounters.Cause,
                          _ counters: ChecksumCounters) {
        counters.full(cause, bytes: headers.transportLength)
        if headers.transport == .sctp { return packet.storeCRC(headers) }
        let data = unsafe UnsafeRawPointer(packet.data)
        let old = unsafe OnesComplementSum(raw: UInt64(data.memoryOrder16(headers.checksumField)))
        let bytes = packet.fullSum(from: headers.l4, count: headers.transportLength) - old
        let field = unsafe (headers.pseudoHeaderSum(data) + bytes).complemented
        unsafe packet.data.storeMemoryOrder16(field == 0 && headers.transport == .udp ? 0xffff : field, headers.checksumField)
    }

    /// Sets the checksum of the UDP header that encloses `inner`, whose own checksum is right or unfinished: a right
    /// one makes its bytes sum to the complement of its pseudo-header, so only the headers in front are summed
    /// (local checksum offload, Documentation/networking/checksum-offloads). The caller knows that `outer` is UDP
    /// with a checksum, and that both headers lie in the first segment.
    @_noLocks
    static func enclose(_ packet: borrowing Packet, _ outer: Headers, _ inner: Headers, _ counters: ChecksumCounters) {
        let data = unsafe packet.data
        let old = unsafe OnesComplementSum(raw: UInt64(UnsafeRawPointer(data).memoryOrder16(outer.checksumField)))
        let front = unsafe OnesComplementSum.of(UnsafeRawPointer(data + outer.l4), count: inner.l4 &- outer.l4) - old
        // 0 - x is the complement in ones' complement arithmetic.
        var sum = unsafe OnesComplementSum() - inner.pseudoHeaderSum(UnsafeRawPointer(data))
        if (inner.l4 &- outer.l4) & 1 == 1 { sum = OnesComplementSum(raw: UInt64(sum.folded.byteSwapped)) }
        let field = unsafe (outer.pseudoHeaderSum(UnsafeRawPointer(data)) + front + sum).complemented
        guard field != old.folded else { return }
        unsafe data.storeMemoryOrder16(field == 0 ? 0xffff : field, outer.checksumField)
        counters.worked(.reseeded)
    }

    /// Writes the pseudo-header sum into the field. True if that changed anything.
    @_noLocks
    static func seed(_ packet: borrowing Packet, _ headers: Headers, _ counters: ChecksumCounters) -> Bool {
        let data = unsafe packet.data
        let seed = unsafe headers.pseudoHeaderSum(UnsafeRawPointer(data)).folded
        guard unsafe UnsafeRawPointer(data).memoryOrder16(headers.checksumField) != seed else { return false }
        unsafe data.storeMemoryOrder16(seed, headers.checksumField)
        counters.worked(.reseeded)
        return true
    }
}
