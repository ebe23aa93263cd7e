import DPDK
import Wire

/// The first bytes of a packet as they were when a program began, so that differences have old bytes
/// (checksum contract, section 3). One a lcore, reused.
@safe struct Shadow: ~Copyable {
    static var bytesMax: Int { 192 }

    let bytes: UnsafeMutableRawPointer
    private(set) var count = 0
    /// Bytes of the whole frame.
    private(set) var frameLength = 0
    private(set) var headers = Headers()

    init() { unsafe bytes = .allocate(byteCount: Self.bytesMax, alignment: 64) }

    deinit { unsafe bytes.deallocate() }

    @_noLocks
    mutating func take(_ packet: borrowing Packet) {
        count = min(packet.dataLength, Self.bytesMax)
        frameLength = packet.length
        unsafe bytes.copyMemory(from: packet.data, byteCount: count)
        headers = packet.headers()
    }

    /// True if `length` bytes at `from` of the arrival stand unchanged at `now` of the packet. Bytes that are
    /// in neither count as changed.
    @_noLocks
    func isIntact(_ packet: borrowing Packet, from: Int, now: Int, length: Int) -> Bool {
        guard from >= 0, now >= 0, from &+ length <= count, now &+ length <= packet.dataLength else { return false }
        let old = unsafe bytes + from
        let new = unsafe packet.data + now
        for index in 0..<length
        where unsafe old.load(fromByteOffset: index, as: UInt8.self) != new.load(fromByteOffset: index, as: UInt8.self) {
            return false
        }
        return true
    }
}
