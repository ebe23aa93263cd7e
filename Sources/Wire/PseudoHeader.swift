/// The pseudo-header sums of RFC 9293 section 3.1 and RFC 8200 section 8.1.
extension Headers {
    /// The sum of addresses, protocol and `transportLength`: the seed virtio and Linux leave in the field of
    /// an unfinished packet. Only where ``hasKnownChecksum``.
    @inlinable @_noLocks
    public func pseudoHeaderSum(_ frame: UnsafeRawPointer) -> OnesComplementSum {
        var sum = unsafe pseudoHeaderSumWithoutLength(frame)
        sum.add(number: UInt16(truncatingIfNeeded: transportLength))
        // A superframe's length can pass 16 bits by its headers; IPv6 sums 32 bits of it.
        sum.add(number: UInt16(truncatingIfNeeded: transportLength &>> 16))
        return sum
    }

    /// The same without the length, as some senders seed superframes.
    @inlinable @_noLocks
    public func pseudoHeaderSumWithoutLength(_ frame: UnsafeRawPointer) -> OnesComplementSum {
        var sum = OnesComplementSum()
        let first = network == .ipv6 ? l3 &+ 8 : l3 &+ 12
        let words = network == .ipv6 ? 8 : 2
        for word in 0..<words { sum.raw &+= unsafe UInt64(frame.memoryOrder32(first &+ word &* 4)) }
        sum.add(number: UInt16(transport == .udp ? IPProtocol.udp.rawValue : IPProtocol.tcp.rawValue))
        return sum
    }
}
