public import CChecksum

/// A 16-bit ones' complement sum under way (RFC 1071), kept in memory order: two bytes count as the
/// machine loads them. The sum does not depend on byte order, so nothing is swapped on the way; only
/// numbers that are not bytes of a packet (a length, a protocol) are brought into memory order first.
///
/// 64 bits hold 2^32 unfolded 32-bit words, far more than any packet has.
public struct OnesComplementSum: Sendable {
    public var raw: UInt64

    @inlinable public init(raw: UInt64 = 0) { self.raw = raw }

    /// The sum of `count` bytes, an odd last one padded with zero.
    @inlinable @_noLocks
    public static func of(_ bytes: UnsafeRawPointer, count: Int) -> OnesComplementSum {
        unsafe OnesComplementSum(raw: apus_sum_bytes(bytes, count))
    }

    @inlinable public static func + (a: OnesComplementSum, b: OnesComplementSum) -> OnesComplementSum {
        // Either side is at most 2^34 after folding to 33 bits, so this cannot wrap.
        OnesComplementSum(raw: a.to33Bits &+ b.to33Bits)
    }

    /// Ones' complement difference (RFC 1624, equation 3): what `a` has that `b` has not.
    @inlinable public static func - (a: OnesComplementSum, b: OnesComplementSum) -> OnesComplementSum {
        OnesComplementSum(raw: a.to33Bits &+ UInt64(~b.folded))
    }

    /// Adds a number that a header would carry in network order.
    @inlinable public mutating func add(number: UInt16) { raw = to33Bits &+ UInt64(number.bigEndian) }

    /// Adds bytes that follow an odd number of bytes: their sum counts with its bytes exchanged.
    @inlinable public mutating func addAtOddPosition(_ part: OnesComplementSum) {
        raw = to33Bits &+ UInt64(part.folded.byteSwapped)
    }

    @inlinable var to33Bits: UInt64 { (raw & 0xffff_ffff) &+ (raw &>> 32) }

    /// 16 bits in memory order, as a header field holds them; not complemented.
    @inlinable public var folded: UInt16 {
        var sum = to33Bits                          // at most 0x1_ffff_fffe
        sum = (sum & 0xffff) &+ (sum &>> 16)        // at most 0x2_fffd
        sum = (sum & 0xffff) &+ (sum &>> 16)        // at most 0x1_0000
        sum = (sum & 0xffff) &+ (sum &>> 16)        // at most 0xffff
        return UInt16(truncatingIfNeeded: sum)
    }

    /// The checksum field that goes with this sum: its complement, in memory order.
    @inlinable public var complemented: UInt16 { ~folded }

    /// Ones' complement has two zeros: a sum over a packet whose checksum is right is either of them.
    @inlinable public var isZero: Bool {
        let value = folded
        return value == 0 || value == 0xffff
    }
}
