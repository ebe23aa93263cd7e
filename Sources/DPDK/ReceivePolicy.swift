import CDPDK
public import Wire

/// `rx-checksum`: what is made of a packet's checksum beyond the driver's word (checksum contract, section 2).
///
/// Reads: state, headers. Writes: states; the checksum of what no port could carry unfinished.
public struct ReceivePolicy: Equatable, Sendable {
    /// A field that equals its pseudo-header sum is an unfinished one. Turns one corrupted packet of 65 536 into a
    /// good one: for ports with no wire behind.
    public var infers: Bool
    /// What is not known is summed.
    public var verifies: Bool

    public init(infers: Bool = false, verifies: Bool = false) {
        self.infers = infers
        self.verifies = verifies
    }

    /// Believe the driver, and nothing else.
    public static var device: ReceivePolicy { ReceivePolicy() }

    /// Settles the state of a packet just received, which nobody else holds.
    @inlinable @_noLocks
    func settle(_ packet: borrowing Packet, _ checksums: ChecksumCounters) {
        switch packet.state.kind {
        case .opaque: settleOpaque(packet, checksums)
        case .none: if infers || verifies { settleUnknown(packet, checksums) }
        case .bad, .unnecessary, .known: return
        }
    }

    /// A fragment's checksum covers bytes that are elsewhere, and SCTP's is no sum: neither can leave unfinished.
    @_noLocks @usableFromInline
    func settleOpaque(_ packet: borrowing Packet, _ checksums: ChecksumCounters) {
        let state = packet.state, headers = packet.headers()
        if headers.isFragment, !Planted.breaks(.fragmentCompletion) {
            var count = packet.length &- Int(state.start)
            if count &- headers.trailingBytes >= Int(state.offset) &+ 2 { count &-= headers.trailingBytes }
            packet.complete(state, count: count)
            checksums.full(.egress, bytes: count)
        } else if headers.transport == .sctp, headers.hasCertainChecksum, headers.l4 == Int(state.start),
                  !Planted.breaks(.sctpSum) {
            packet.storeCRC(headers)
            checksums.full(.egress, bytes: headers.transportLength)
            packet.state = .unnecessary(start: state.start, offset: state.offset)
        }
    }

    @_noLocks @usableFromInline
    func settleUnknown(_ packet: borrowing Packet, _ checksums: ChecksumCounters) {
        let headers = packet.headers()
        guard headers.hasCertainChecksum, !packet.state.isSuperframe else { return }
        let start = UInt16(truncatingIfNeeded: headers.l4), offset = UInt16(truncatingIfNeeded: headers.checksumOffset)
        let data = unsafe UnsafeRawPointer(packet.data)
        let field = unsafe data.memoryOrder16(headers.checksumField)
        if infers, headers.hasKnownChecksum,
           unsafe field == headers.pseudoHeaderSum(data).folded || Planted.breaks(.inferAny) {
            packet.state = .known(start: start, offset: offset)
            return
        }
        // RFC 768: no checksum. RFC 6936 allows it over IPv6 only where both ends agreed.
        guard verifies, headers.transport != .udp || field != 0 else { return }
        let isRight = packet.hasRightChecksum(headers) || Planted.breaks(.verifyTrusts)
        checksums.full(.verify, bytes: headers.transportLength)
        packet.state = isRight ? .unnecessary(start: start, offset: offset) : .bad
    }
}

extension Packet {
    /// Finishes an unfinished checksum: `count` bytes from its start on, the seed in the field included.
    @_noLocks
    public func complete(_ state: ChecksumState, count: Int) {
        let field = fullSum(from: Int(state.start), count: count).complemented
        // A sum of zero is sent as 0xffff: RFC 768 for UDP, and Linux does so for whatever it completes.
        store(memoryOrder: field == 0 && !Planted.breaks(.zeroIsZero) ? 0xffff : field, at: state.field)
        self.state = state.completed
    }

    /// SCTP's checksum from all its bytes.
    @_noLocks
    public func storeCRC(_ headers: Headers) {
        let crc = fullCRC(from: headers.l4, count: headers.transportLength).littleEndian
        unsafe data.storeBytes(of: crc, toByteOffset: headers.checksumField, as: UInt32.self)
    }

    /// The caller checked ``Headers/hasCertainChecksum``.
    @_noLocks
    public func hasRightChecksum(_ headers: Headers) -> Bool {
        let data = unsafe UnsafeRawPointer(data)
        if headers.transport == .sctp {
            let field = unsafe UInt32(littleEndian: data.memoryOrder32(headers.checksumField))
            return fullCRC(from: headers.l4, count: headers.transportLength) == field
        }
        return unsafe (headers.pseudoHeaderSum(data) + fullSum(from: headers.l4, count: headers.transportLength)).isZero
    }
}
