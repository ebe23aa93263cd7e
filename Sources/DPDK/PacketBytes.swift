import CChecksum
import CDPDK
public import Wire

/// Bytes of a packet that may lie in several segments.
extension Packet {
    /// The RFC 1071 sum of `count` bytes from `from` on, over all segments and any split between them.
    ///
    /// This is the one function that sums whole packets: a uprobe on its symbol counts the full checksums
    /// that are made in software. The caller keeps `from + count` within the packet.
    @_noLocks
    public func fullSum(from: Int, count: Int) -> OnesComplementSum {
        unsafe OnesComplementSum(raw: apusFullChecksum(mbuf, from, count))
    }

    /// SCTP's CRC-32C (RFC 9260 section 6.8) of `count` bytes from `from` on, its field counted as zero. The
    /// number whose little-endian bytes go into the field.
    @_noLocks
    public func fullCRC(from: Int, count: Int) -> UInt32 { unsafe apusFullCRC(mbuf, from, count) }

    /// Copies `count` bytes from `from` on to `target`. The caller keeps them within the packet.
    @_noLocks
    public func copyBytes(from: Int, count: Int, to target: UnsafeMutableRawPointer) {
        var skip = from
        var done = 0
        var segment: OpaquePointer? = unsafe mbuf
        while done < count, let current = unsafe segment {
            let length = unsafe Int(apus_mbuf_data_length(current))
            if skip < length {
                let part = min(length &- skip, count &- done)
                unsafe apus_copy(target + done, apus_mbuf_data(current) + skip, part)
                done &+= part
                skip = 0
            } else {
                skip &-= length
            }
            unsafe segment = apus_mbuf_next(current)
        }
    }

    /// Stores 16 bits in memory order at `at`, which may lie in any segment, even across two.
    @_noLocks
    public func store(memoryOrder value: UInt16, at: Int) {
        if at &+ 2 <= dataLength { return unsafe data.storeMemoryOrder16(value, at) }
        let bytes = value.littleEndian
        storeByte(UInt8(truncatingIfNeeded: bytes), at: at)
        storeByte(UInt8(truncatingIfNeeded: bytes &>> 8), at: at &+ 1)
    }

    /// Puts `tail` behind this packet's last segment. False, and `tail` freed, where the chain would be too long.
    @_noLocks
    public func chain(_ tail: consuming Packet) -> Bool {
        let mbuf = unsafe tail.release()
        if unsafe apus_mbuf_chain(self.mbuf, mbuf) { return true }
        unsafe apus_mbuf_free(mbuf)
        return false
    }

    @_noLocks
    func storeByte(_ value: UInt8, at: Int) {
        var skip = at
        var segment: OpaquePointer? = unsafe mbuf
        while let current = unsafe segment {
            let length = unsafe Int(apus_mbuf_data_length(current))
            if skip < length {
                unsafe apus_mbuf_data(current)[skip] = value
                return
            }
            skip &-= length
            unsafe segment = apus_mbuf_next(current)
        }
    }
}

/// See ``Packet/fullSum(from:count:)``. Its symbol is fixed, so that tracing tools find it.
@_silgen_name("apus_full_checksum") @inline(never) @_noLocks
public func apusFullChecksum(_ mbuf: OpaquePointer, _ from: Int, _ count: Int) -> UInt64 {
    var total = OnesComplementSum()
    var skip = from
    var left = count
    var isOdd = false
    var segment: OpaquePointer? = unsafe mbuf
    while left > 0, let current = unsafe segment {
        let length = unsafe Int(apus_mbuf_data_length(current))
        if skip < length {
            let part = min(length &- skip, left)
            let sum = unsafe OnesComplementSum.of(UnsafeRawPointer(apus_mbuf_data(current) + skip), count: part)
            if isOdd, !Planted.breaks(.oddSplit) { total.addAtOddPosition(sum) } else { total = total + sum }
            isOdd = isOdd != (part & 1 == 1)
            left &-= part
            skip = 0
        } else {
            skip &-= length
        }
        unsafe segment = apus_mbuf_next(current)
    }
    return UInt64(total.folded)
}

/// See ``Packet/fullCRC(from:count:)``. Its symbol is fixed, too.
@_silgen_name("apus_full_crc") @inline(never) @_noLocks
public func apusFullCRC(_ mbuf: OpaquePointer, _ from: Int, _ count: Int) -> UInt32 {
    var crc: UInt32 = ~0
    var zero: UInt32 = 0
    var at = 0
    var segment: OpaquePointer? = unsafe mbuf
    // Three runs: up to the field (8 bytes in), four zeros in its place, the rest. A run may lie in several segments.
    let field = from &+ 8, end = from &+ count
    while at < end, let current = unsafe segment {
        let length = unsafe Int(apus_mbuf_data_length(current))
        let data = unsafe UnsafeRawPointer(apus_mbuf_data(current))
        let before = (lower: max(from, at), upper: min(field, at &+ length))
        if before.lower < before.upper {
            crc = unsafe apus_crc32c(crc, data + (before.lower &- at), before.upper &- before.lower)
        }
        let inside = min(field &+ 4, at &+ length) &- max(field, at)
        if inside > 0 { crc = unsafe apus_crc32c(crc, &zero, inside) }
        let after = (lower: max(field &+ 4, at), upper: min(end, at &+ length))
        if after.lower < after.upper {
            crc = unsafe apus_crc32c(crc, data + (after.lower &- at), after.upper &- after.lower)
        }
        at &+= length
        unsafe segment = apus_mbuf_next(current)
    }
    return ~crc
}
