import DPDK
import EBPF
import Wire

/// Brings a packet's checksum and state in line with what a program did to it: checksum contract,
/// section 5, for TCP and UDP.
///
/// Reads: the packet's arrival state, the effect, the shadow, the final bytes.
/// Writes: the state, the checksum fields, nothing else.
struct Reconcile {
    let counters: ChecksumCounters
    /// Some store of the program may put a zero into UDP's field that derives from nothing: what a finished checksum is
    /// asked. Of a seed, whose zero may be chance, the run itself says.
    var mayClearChecksum = true

    /// The packet's window is already the one the program left.
    @_noLocks
    func callAsFunction(_ packet: borrowing Packet, _ effect: Effect, _ shadow: borrowing Shadow) {
        guard effect.wrote, !Self.touchesOnlyAddresses(effect, shadow) else { return }
        let final = packet.headers()
        if Self.changesOnlyLinkLayer(effect, shadow, final) {
            return packet.linkLayerGrew(by: Int(-effect.headDelta))
        }
        let isHeaderMended = mendIPv4Header(packet, effect, shadow, final)
        switch packet.state.kind {
        case .none, .bad:
            return
        case .known, .opaque:
            packet.state = partial(packet, effect, shadow, final)
        case .unnecessary:
            packet.state = unnecessary(packet, effect, shadow, final, isHeaderMended)
        }
        if final.isMalformed, packet.state.kind == .none { counters.worked(.malformed) }
    }

    /// Only the MAC addresses were written: neither a header's place nor a covered byte can have changed.
    @_noLocks
    static func touchesOnlyAddresses(_ effect: Effect, _ shadow: borrowing Shadow) -> Bool {
        guard effect.headDelta == 0, effect.tailDelta == 0, effect.lowestEnd == 0 else { return false }
        return !effect.written.reaches(from: min(12, shadow.headers.l3))
    }

    /// Everything from the network header on is as it arrived, and found behind a link layer of another length: a
    /// tag was pushed, popped or rewritten.
    @_noLocks
    static func changesOnlyLinkLayer(_ effect: Effect, _ shadow: borrowing Shadow, _ final: Headers) -> Bool {
        !effect.written.reaches(from: shadow.headers.l3) && effect.tailDelta == 0 && effect.lowestEnd == 0
            && final.network != .other && final.network == shadow.headers.network
            && final.l3 == shadow.headers.l3 &- Int(effect.headDelta)
    }

    // MARK: IPv4 header

    /// Mends the header checksum where the arrival's was right and the program left it wrong. Any state:
    /// what was wrong on arrival stays wrong. True if the field changed.
    ///
    /// The header is the one that leads to the same transport header, else the one whose bytes stand where the
    /// arrival's stood.
    @_noLocks
    private func mendIPv4Header(_ packet: borrowing Packet, _ effect: Effect, _ shadow: borrowing Shadow,
                                _ final: Headers) -> Bool {
        let old = shadow.headers
        guard old.network == .ipv4, !old.isMalformed else { return false }
        let oldLength = unsafe Self.ipv4HeaderLength(UnsafeRawPointer(shadow.bytes), at: old.l3, available: shadow.count)
        let leadsToSame = final.network == .ipv4 && final.l4 > 0 && final.l4 == old.l4 &- Int(effect.headDelta)
        let place = leadsToSame ? final.l3 : old.l3 &- Int(effect.headDelta)
        // A quote: the message's checksum covers it as it is.
        if place > final.l3, final.transport == .icmp || final.transport == .icmp6 { return false }
        let data = unsafe packet.data
        let length = unsafe Self.ipv4HeaderLength(UnsafeRawPointer(data), at: place, available: packet.dataLength)
        guard oldLength > 0, length > 0 else { return false }
        guard unsafe OnesComplementSum.of(UnsafeRawPointer(shadow.bytes + old.l3), count: oldLength).isZero else { return false }
        let sum = unsafe OnesComplementSum.of(UnsafeRawPointer(data + place), count: length)
        guard !sum.isZero else { return false }
        let field = unsafe UnsafeRawPointer(data).memoryOrder16(place &+ 10)
        unsafe data.storeMemoryOrder16((sum - OnesComplementSum(raw: UInt64(field))).complemented, place &+ 10)
        counters.worked(.ipHeader)
        return true
    }

    /// 0 where no IPv4 header stands at `at`.
    @_noLocks
    private static func ipv4HeaderLength(_ frame: UnsafeRawPointer, at: Int, available: Int) -> Int {
        guard at >= 0, at &+ 20 <= available else { return 0 }
        let first = unsafe frame.byte(at)
        let length = Int(first & 0x0f) &* 4
        return first &>> 4 == 4 && length >= 20 && at &+ length <= available ? length : 0
    }

    // MARK: Partial

    @_noLocks
    private func partial(_ packet: borrowing Packet, _ effect: Effect, _ shadow: borrowing Shadow,
                         _ final: Headers) -> ChecksumState {
        let state = packet.state
        // An opaque one was completed before a program that can write.
        guard state.kind == .known else { return state }
        switch place(packet, effect, shadow, final) {
        case .outermost:
            return seeded(packet, effect, final)
        case .enclosed(let inner):
            if effect.cleared, isUDPWithoutChecksum(packet, inner) { return state.forgotten }
            // A quote whose checksum is the program's own: the message's covers it as it is. (What derives from the seed
            // is no part of a message's checksum: summing it was a look.)
            if final.transport == .icmp || final.transport == .icmp6, Self.mayHaveWrittenField(effect, shadow) { return state.forgotten }
            _ = Completion.seed(packet, inner, counters)
            let reachesEnd = inner.trailingBytes == 0 && packet.length == inner.l4 &+ inner.transportLength
            if !reachesEnd { Completion.recompute(packet, inner, .xdpWrite, counters) }
            enclose(packet, final, inner)
            return reachesEnd ? state.moved(by: inner.l4 &- Int(state.start)).enclosed : state.forgotten
        case .unparsed(let start):
            let kept = state.moved(by: start &- Int(state.start)).enclosed
            let old = shadow.headers
            // An opaque sum goes to the end of the frame: what stands behind the datagram has no place in it.
            guard old.trailingBytes > 0 else { return kept }
            packet.complete(kept, count: old.transportLength)
            counters.full(.xdpWrite, bytes: old.transportLength)
            return kept.completed
        case .gone:
            return state.forgotten
        }
    }

    @_noLocks
    private static func mayHaveWrittenField(_ effect: Effect, _ shadow: borrowing Shadow) -> Bool {
        effect.written.overlaps(shadow.headers.checksumField, shadow.headers.checksumField &+ 2)
    }

    /// The new seed, and the state that goes with it.
    @_noLocks
    private func seeded(_ packet: borrowing Packet, _ effect: Effect, _ headers: Headers) -> ChecksumState {
        let state = packet.state
        if effect.cleared, isUDPWithoutChecksum(packet, headers) { return state.forgotten }
        _ = Completion.seed(packet, headers, counters)
        let seeded = state.reseeded(start: UInt16(truncatingIfNeeded: headers.l4),
                                    offset: UInt16(truncatingIfNeeded: headers.checksumOffset))
        guard state.isSuperframe else { return seeded }
        guard headers.transportLength &- headers.transportHeaderLength > Int(state.segmentSize) else { return seeded.segmented }
        let cut: ChecksumState.Segmentation = headers.transport == .udp ? state.segmentation
            : headers.network == .ipv6 ? .tcp6 : .tcp4
        return seeded.superframe(cut, segmentSize: state.segmentSize, congestion: state.hasCongestionBit)
    }

    /// Sets the checksum of a UDP header that the program put around a mended or unfinished one.
    @_noLocks
    private func enclose(_ packet: borrowing Packet, _ outer: Headers, _ inner: Headers) {
        guard outer.transport == .udp, outer.hasKnownChecksum, outer.l4 < inner.l4,
              unsafe UnsafeRawPointer(packet.data).memoryOrder16(outer.checksumField) != 0,
              !Planted.breaks(.enclosingChecksum) else { return }
        // What stands behind the inner datagram, and a CRC, are no part of that arithmetic.
        guard inner.transport != .sctp, outer.l4 &+ outer.transportLength == inner.l4 &+ inner.transportLength else {
            return Completion.recompute(packet, outer, .xdpWrite, counters)
        }
        Completion.enclose(packet, outer, inner, counters)
    }

    /// A zero in a UDP/IPv4 field is a decision of the program, not damage: neither a seed nor a finished
    /// checksum is zero. Arithmetic on a seed may come to zero by chance, though, which decides nothing.
    @_noLocks
    private func isUDPWithoutChecksum(_ packet: borrowing Packet, _ headers: Headers) -> Bool {
        guard mayClearChecksum, headers.transport == .udp, headers.network == .ipv4 else { return false }
        return unsafe UnsafeRawPointer(packet.data).memoryOrder16(headers.checksumField) == 0
    }

    // MARK: Verified

    @_noLocks
    private func unnecessary(_ packet: borrowing Packet, _ effect: Effect, _ shadow: borrowing Shadow,
                             _ final: Headers, _ isHeaderMended: Bool) -> ChecksumState {
        let state = packet.state
        let found = place(packet, effect, shadow, final)
        switch found {
        case .gone:
            return state.forgotten
        case .unparsed(let start):
            return state.moved(by: start &- Int(state.start))
        case .outermost(let isMoved):
            if isUDPWithoutChecksum(packet, final) { return state.forgotten }
            _ = mend(packet, effect, shadow, final, isMoved: isMoved)
            return state.moved(by: final.l4 &- Int(state.start))
        case .enclosed(let inner):
            // A quote: the message's checksum covers it as it is.
            if final.transport == .icmp || final.transport == .icmp6 { return state.forgotten }
            if isUDPWithoutChecksum(packet, inner) { return state.forgotten }
            let isMended = mend(packet, effect, shadow, inner, isMoved: false)
            // The inner IPv4 header is part of what the outer UDP checksum covers.
            if isMended || isHeaderMended { enclose(packet, final, inner) }
            return state.moved(by: inner.l4 &- Int(state.start))
        }
    }

    /// Keeps a verified checksum right: by difference where every changed byte has its old one in the shadow,
    /// else by the full sum. True if the field may have changed.
    @_noLocks
    private func mend(_ packet: borrowing Packet, _ effect: Effect, _ shadow: borrowing Shadow, _ headers: Headers,
                      isMoved: Bool) -> Bool {
        let old = shadow.headers
        let isInShadow = effect.tailDelta == 0 && effect.lowestEnd == 0 && !isMoved
            && effect.written.end <= shadow.count && old.payload <= shadow.count && headers.transportLength == old.transportLength
        let count = min(shadow.count &- old.l4, old.transportLength)
        if headers.transport == .sctp {
            // A CRC has no difference worth the name; addresses are no part of it.
            if isInShadow, shadow.isIntact(packet, from: old.l4, now: headers.l4, length: count) { return false }
            if !Planted.breaks(.sctpRewrite) { Completion.recompute(packet, headers, .xdpWrite, counters) }
            return true
        }
        guard isInShadow else {
            Completion.recompute(packet, headers, .xdpWrite, counters)
            return true
        }
        let data = unsafe packet.data
        let before = unsafe old.pseudoHeaderSum(UnsafeRawPointer(shadow.bytes))
            + OnesComplementSum.of(UnsafeRawPointer(shadow.bytes + old.l4), count: count)
        let after = unsafe headers.pseudoHeaderSum(UnsafeRawPointer(data))
            + OnesComplementSum.of(UnsafeRawPointer(data + headers.l4), count: count)
        let change = after - before
        counters.worked(.difference)
        let field = unsafe UnsafeRawPointer(data).memoryOrder16(headers.checksumField)
        guard !change.isZero else {
            // The program's own arithmetic came to zero: all ones is the same number, and a checksum.
            if headers.transport == .udp, field == 0 { unsafe data.storeMemoryOrder16(0xffff, headers.checksumField) }
            return false
        }
        // RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
        let mended = (OnesComplementSum(raw: UInt64(~field)) + change).complemented
        unsafe data.storeMemoryOrder16(mended == 0 && headers.transport == .udp ? 0xffff : mended, headers.checksumField)
        return true
    }

    // MARK: Where the named header is now

    private enum Place {
        /// The parser reaches it. `isMoved`: not the same bytes any more, a header of the same kind elsewhere.
        case outermost(isMoved: Bool)
        /// Other headers stand around it; its own IP header still leads to it.
        case enclosed(Headers)
        /// Its bytes and its pseudo-header are intact, but no header leads to it.
        case unparsed(start: Int)
        case gone
    }

    @_noLocks
    private func place(_ packet: borrowing Packet, _ effect: Effect, _ shadow: borrowing Shadow,
                       _ final: Headers) -> Place {
        let old = shadow.headers
        guard old.hasCertainChecksum, old.l4 == Int(packet.state.start), !final.isMalformed else { return .gone }
        let start = old.l4 &- Int(effect.headDelta)
        let isSameKind = final.hasCertainChecksum && final.transport == old.transport
        if isSameKind, final.l4 == start { return .outermost(isMoved: false) }
        guard start >= 0, start &+ old.transportHeaderLength <= packet.dataLength else { return .gone }
        // Its own IP header, where that now is: what the program wrote behind it is mended as anywhere else.
        let l3 = old.l3 &- Int(effect.headDelta)
        if l3 > final.l3 {
            let inner = parse(packet, old.network, l3: l3)
            if inner.hasCertainChecksum, inner.transport == old.transport, inner.l4 == start { return .enclosed(inner) }
        }
        guard shadow.isIntact(packet, from: old.l4, now: start, length: old.transportHeaderLength) else {
            return isSameKind ? .outermost(isMoved: true) : .gone
        }
        let isPseudoHeaderIntact = isPseudoHeaderIntact(packet, shadow, l3)
        return isPseudoHeaderIntact && effect.tailDelta == 0 && effect.lowestEnd == 0
            ? .unparsed(start: start) : .gone
    }

    /// Addresses, protocol and lengths decide the pseudo-header. IPv4's time to live, its options and the like do not; of
    /// IPv6's extension headers each may.
    @_noLocks
    private func isPseudoHeaderIntact(_ packet: borrowing Packet, _ shadow: borrowing Shadow, _ l3: Int) -> Bool {
        let old = shadow.headers
        guard old.network == .ipv4 else { return shadow.isIntact(packet, from: old.l3, now: l3, length: old.l4 &- old.l3) }
        return shadow.isIntact(packet, from: old.l3, now: l3, length: 1)
            && shadow.isIntact(packet, from: old.l3 &+ 2, now: l3 &+ 2, length: 2)
            && shadow.isIntact(packet, from: old.l3 &+ 9, now: l3 &+ 9, length: 1)
            && shadow.isIntact(packet, from: old.l3 &+ 12, now: l3 &+ 12, length: 8)
    }

    @_noLocks
    private func parse(_ packet: borrowing Packet, _ network: Headers.Network, l3: Int) -> Headers {
        let data = unsafe UnsafeRawPointer(packet.data)
        let isSuperframe = packet.state.isSuperframe
        switch network {
        case .ipv4:
            return unsafe .parseIPv4(data, l3: l3, available: packet.dataLength, length: packet.length, isSuperframe: isSuperframe)
        case .ipv6:
            return unsafe .parseIPv6(data, l3: l3, available: packet.dataLength, length: packet.length, isSuperframe: isSuperframe)
        case .other:
            return Headers()
        }
    }
}
