import DPDK
import Wire

/// How one TCP superframe is cut: headers copied, payload shared out, the fields that differ rewritten
/// (RFC 9293 for TCP; RFC 6864 allows what Linux does, IPv4 identification counting up). The checksum
/// field is left to the caller.
struct Segmentation {
    private let headers: Headers
    private let payload: Int
    private let segmentSize: Int
    private let hasCongestionBit: Bool

    /// Payload bytes and segment size are positive.
    @_noLocks
    init(_ headers: Headers, payload: Int, segmentSize: Int, hasCongestionBit: Bool) {
        self.headers = headers
        self.payload = payload
        self.segmentSize = segmentSize
        self.hasCongestionBit = hasCongestionBit
    }

    /// At least 1.
    var count: Int { (payload &+ segmentSize &- 1) / segmentSize }

    @_noLocks
    private func payloadLength(_ number: Int) -> Int { min(segmentSize, payload &- number &* segmentSize) }

    @_noLocks
    func frameLength(_ number: Int) -> Int { headers.payload &+ payloadLength(number) }

    /// Writes segment `number` of `superframe` into the window of `segment`, which has ``frameLength(_:)`` bytes.
    @_noLocks
    func write(_ number: Int, of superframe: borrowing Packet, into segment: borrowing Packet) {
        let data = unsafe segment.data
        let length = payloadLength(number)
        unsafe superframe.copyBytes(from: 0, count: headers.payload, to: data)
        unsafe superframe.copyBytes(from: headers.payload &+ number &* segmentSize, count: length, to: data + headers.payload)
        unsafe writeIP(data, number, length: headers.payload &- headers.l3 &+ length)
        unsafe writeTCP(data, number)
    }

    @_noLocks
    private func writeIP(_ data: UnsafeMutableRawPointer, _ number: Int, length: Int) {
        let l3 = headers.l3
        guard headers.network == .ipv4 else {
            unsafe data.storeBigEndian16(UInt16(truncatingIfNeeded: length &- 40), l3 &+ 4)
            return
        }
        // By difference, so that a header checksum that was wrong stays wrong.
        let bytes = UnsafeRawPointer(data)
        var change = OnesComplementSum()
        let identification = unsafe bytes.bigEndian16(l3 &+ 4) &+ UInt16(truncatingIfNeeded: number)
        change = unsafe change - OnesComplementSum(raw: UInt64(bytes.memoryOrder16(l3 &+ 2)))
        change = unsafe change - OnesComplementSum(raw: UInt64(bytes.memoryOrder16(l3 &+ 4)))
        change.add(number: UInt16(truncatingIfNeeded: length))
        change.add(number: identification)
        let field = unsafe bytes.memoryOrder16(l3 &+ 10)
        unsafe data.storeBigEndian16(UInt16(truncatingIfNeeded: length), l3 &+ 2)
        unsafe data.storeBigEndian16(identification, l3 &+ 4)
        unsafe data.storeMemoryOrder16((OnesComplementSum(raw: UInt64(~field)) + change).complemented, l3 &+ 10)
    }

    @_noLocks
    private func writeTCP(_ data: UnsafeMutableRawPointer, _ number: Int) {
        let l4 = headers.l4
        let bytes = UnsafeRawPointer(data)
        let sequence = unsafe UInt32(bigEndian: bytes.memoryOrder32(l4 &+ 4))
        unsafe data.storeBigEndian32(sequence &+ UInt32(truncatingIfNeeded: number &* segmentSize), l4 &+ 4)
        var flags = unsafe bytes.byte(l4 &+ 13)
        // FIN and PSH speak of the last byte; CWR (RFC 3168) of the first segment only.
        if number < count &- 1 { flags &= ~0x09 }
        if number > 0, hasCongestionBit { flags &= ~0x80 }
        unsafe data.storeBytes(of: flags, toByteOffset: l4 &+ 13, as: UInt8.self)
    }
}
