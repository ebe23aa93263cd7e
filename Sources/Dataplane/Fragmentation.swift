import DPDK
import Wire

/// How one finished datagram is cut into IPv4 fragments (RFC 791 section 3.2; fields as Linux writes them for
/// UFO): headers copied, the same identification in all of them.
struct Fragmentation {
    private let headers: Headers
    private let size: Int

    /// `size` is a positive multiple of 8.
    @_noLocks
    init(_ headers: Headers, size: Int) {
        self.headers = headers
        self.size = size
    }

    /// At least 1.
    var count: Int { (headers.transportLength &+ size &- 1) / size }

    @_noLocks
    private func payloadLength(_ number: Int) -> Int { min(size, headers.transportLength &- number &* size) }

    @_noLocks
    func frameLength(_ number: Int) -> Int { headers.l4 &+ payloadLength(number) }

    /// Writes fragment `number` into the window of `fragment`, which has ``frameLength(_:)`` bytes.
    @_noLocks
    func write(_ number: Int, of whole: borrowing Packet, into fragment: borrowing Packet) {
        let data = unsafe fragment.data
        let length = payloadLength(number), l3 = headers.l3
        unsafe whole.copyBytes(from: 0, count: headers.l4, to: data)
        unsafe whole.copyBytes(from: headers.l4 &+ number &* size, count: length, to: data + headers.l4)
        // The offset counts eights; bit 13 says that more follow.
        let place = UInt16(truncatingIfNeeded: number &* size / 8) | (number < count &- 1 ? 0x2000 : 0)
        unsafe data.replaceIPv4Words(l3, length: UInt16(truncatingIfNeeded: headers.l4 &- l3 &+ length), at: 6, place)
    }
}

extension UnsafeMutableRawPointer {
    /// Writes the total length and one more 16-bit word of the IPv4 header at `l3`. Its checksum follows by
    /// difference (RFC 1624), so that one that was wrong stays wrong.
    @_noLocks
    func replaceIPv4Words(_ l3: Int, length: UInt16, at: Int, _ word: UInt16) {
        let bytes = UnsafeRawPointer(self)
        var change = OnesComplementSum()
        change = unsafe change - OnesComplementSum(raw: UInt64(bytes.memoryOrder16(l3 &+ 2)))
        change = unsafe change - OnesComplementSum(raw: UInt64(bytes.memoryOrder16(l3 &+ at)))
        change.add(number: length)
        change.add(number: word)
        let field = unsafe bytes.memoryOrder16(l3 &+ 10)
        unsafe storeBigEndian16(length, l3 &+ 2)
        unsafe storeBigEndian16(word, l3 &+ at)
        unsafe storeMemoryOrder16((OnesComplementSum(raw: UInt64(~field)) + change).complemented, l3 &+ 10)
    }
}
