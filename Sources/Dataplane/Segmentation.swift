import DPDK
import Wire

/// How one superframe of TCP or of datagrams is cut: headers copied, payload shared out, the fields that differ
/// rewritten (RFC 9293 for TCP, RFC 768 for UDP; RFC 6864 allows what Linux does, IPv4 identification counting up). The checksum
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
        if headers.transport == .tcp { return unsafe writeTCP(data, number) }
        unsafe data.storeBigEndian16(UInt16(truncatingIfNeeded: headers.transportHeaderLength &+ length), headers.l4 &+ 4)
    }

    @_noLocks
    private func writeIP(_ data: UnsafeMutableRawPointer, _ number: Int, length: Int) {
        let l3 = headers.l3
        guard headers.network == .ipv4 else {
            unsafe data.storeBigEndian16(UInt16(truncatingIfNeeded: length &- 40), l3 &+ 4)
            return
        }
        let identification = unsafe UnsafeRawPointer(data).bigEndian16(l3 &+ 4) &+ UInt16(truncatingIfNeeded: number)
        unsafe data.replaceIPv4Words(l3, length: UInt16(truncatingIfNeeded: length), at: 4, identification)
    }

    @_noLocks
    private func writeTCP(_ data: UnsafeMutableRawPointer, _ number: Int) {
        let l4 = headers.l4
        let bytes = UnsafeRawPointer(data)
        let sequence = unsafe UInt32(bigEndian: bytes.memoryOrder32(l4 &+ 4))
        unsafe data.storeBigEndian32(sequence &+ UInt32(truncatingIfNeeded: Planted.breaks(.sequenceStays) ? 0 : number &* segmentSize), l4 &+ 4)
        var flags = unsafe bytes.byte(l4 &+ 13)
        // FIN and PSH speak of the last byte; CWR (RFC 3168) of the first segment only.
        if number < count &- 1, !Planted.breaks(.lastFlags) { flags &= ~0x09 }
        if number > 0, hasCongestionBit, !Planted.breaks(.congestionBit) { flags &= ~0x80 }
        unsafe data.storeBytes(of: flags, toByteOffset: l4 &+ 13, as: UInt8.self)
    }
}
