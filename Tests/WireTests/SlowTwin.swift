/// RFC 1071 a byte at a time, from the text: the twin that fast code is held against.
enum SlowTwin {
    /// The sum in network order, folded, not complemented.
    static func sum(_ bytes: some Sequence<UInt8>) -> UInt16 {
        var total: UInt32 = 0
        for (index, byte) in bytes.enumerated() {
            total += index.isMultiple(of: 2) ? UInt32(byte) << 8 : UInt32(byte)
            while total > 0xffff { total = total & 0xffff + total >> 16 }
        }
        return UInt16(total)
    }

    static func add(_ a: UInt16, _ b: UInt16) -> UInt16 {
        let total = UInt32(a) + UInt32(b)
        return UInt16(total & 0xffff) + UInt16(total >> 16)
    }
}
