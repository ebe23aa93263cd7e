import DPDK
import Wire

/// Full checksums in software: the only callers of ``Packet/fullSum(from:count:)``. Each has a cause and is counted.
enum Completion {
    /// Turns a partial packet into a finished one: the sum from start to the end of what the checksum covers,
    /// the seed in the field included.
    ///
    /// A known checksum ends with its datagram; an opaque one with the frame, as virtio and Linux have it.
    @_noLocks
    static func complete(_ packet: borrowing Packet, _ cause: ChecksumCounters.Cause, _ counters: ChecksumCounters) {
        let state = packet.state
        guard state.isPartial else { return }
        let start = Int(state.start)
        var count = packet.length &- start
        if state.kind == .known {
            let headers = packet.headers()
            if headers.l4 == start { count = headers.transportLength }
        }
        let sum = packet.fullSum(from: start, count: count)
        // A sum of zero is sent as 0xffff: RFC 768 for UDP, and Linux does so for whatever it completes.
        let field = sum.complemented
        packet.store(memoryOrder: field == 0 ? 0xffff : field, at: state.field)
        counters.full(cause, bytes: count)
        packet.state = state.completed
    }

    /// Computes the transport checksum anew from all its bytes. The caller checked ``Headers/hasKnownChecksum``.
    @_noLocks
    static func recompute(_ packet: borrowing Packet, _ headers: Headers, _ cause: ChecksumCounters.Cause,
                          _ counters: ChecksumCounters) {
        let data = unsafe UnsafeRawPointer(packet.data)
        let old = unsafe OnesComplementSum(raw: UInt64(data.memoryOrder16(headers.checksumField)))
        let bytes = packet.fullSum(from: headers.l4, count: headers.transportLength) - old
        let field = unsafe (headers.pseudoHeaderSum(data) + bytes).complemented
        unsafe packet.data.storeMemoryOrder16(field == 0 && headers.transport == .udp ? 0xffff : field, headers.checksumField)
        counters.full(cause, bytes: headers.transportLength)
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
