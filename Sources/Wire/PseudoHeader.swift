/// The pseudo-header sums of RFC 9293 section 3.1 and RFC 8200 section 8.1.
extension Headers {
    /// The sum of addresses, protocol and `transportLength`: the seed virtio and Linux leave in the field of
    /// an unfinished packet. Only where ``hasCertainChecksum``; zero where the protocol has no pseudo-header.
    @inlinable @_noLocks
    public func pseudoHeaderSum(_ frame: UnsafeRawPointer) -> OnesComplementSum {
        var sum = unsafe pseudoHeaderSumWithoutLength(frame)
        guard hasPseudoHeader else { return sum }
        sum.add(number: UInt16(truncatingIfNeeded: transportLength))
        // A superframe's length can pass 16 bits by its headers; IPv6 sums 32 bits of it.
        sum.add(number: UInt16(truncatingIfNeeded: transportLength &>> 16))
        return sum
    }

    /// The same without the length, as some senders seed superframes.
    @inlinable @_noLocks
    public func pseudoHeaderSumWithoutLength(_ frame: UnsafeRawPointer) -> OnesComplementSum {
        var sum = OnesComplementSum()
        guard hasPseudoHeader else { return sum }
        if network == .ipv6 {
            // At most 8 words of 32 bits: no wrap.
            for word in 0..<4 {
                sum.raw &+= unsafe UInt64(frame.memoryOrder32(l3 &+ 8 &+ word &* 4))
                sum.raw &+= unsafe UInt64(frame.memoryOrder32(destination &+ word &* 4))
            }
        } else {
            sum.raw = unsafe UInt64(frame.memoryOrder32(l3 &+ 12)) &+ UInt64(frame.memoryOrder32(l3 &+ 16))
        }
        sum.add(number: UInt16(pseudoHeaderProtocol.rawValue))
        return sum
    }

    @inlinable var hasPseudoHeader: Bool {
        switch transport {
        case .tcp, .udp: true
        case .icmp6: !Planted.breaks(.icmp6PseudoHeader)
        case .sctp, .icmp, .other: false
        }
    }

    /// The transport's own number, whatever extension headers stand before it (RFC 8200 section 8.1).
    @inlinable var pseudoHeaderProtocol: IPProtocol {
        switch transport {
        case .udp: .udp
        case .icmp6: .icmp6
        case .tcp, .sctp, .icmp, .other: .tcp
        }
    }
}
