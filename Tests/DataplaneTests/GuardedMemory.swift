import CDPDK
import Glibc
import Wire
@testable import DPDK

/// Packet buffers with a page before and behind each that nobody may touch: a byte read or written outside ends the
/// test process. The packets are ordinary ones otherwise: of a pool, their bytes their own.
final class GuardedMemory: @unchecked Sendable {
    // @unchecked: used by one test at a time, as PacketBench is.
    static let shared = GuardedMemory()

    /// Where in its buffer a segment lies: up against the page behind, or the one before.
    enum Edge: CaseIterable, Sendable { case back, front }

    private static let pages = 15, page = 4096, count = 511
    private static var room: Int { pages * page }
    let pool: PacketPool

    private init() {
        // Starts EAL.
        _ = PacketBench.shared
        do {
            pool = try PacketPool(name: "guarded", capacity: Self.count, room: 2048, cache: 0)
        } catch {
            fatalError("\(error)")
        }
        let stride = (Self.pages + 1) * Self.page
        let memory = unsafe mmap(nil, Self.count * stride + Self.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        unsafe _ = mprotect(memory, Self.page, PROT_NONE)
        var all: [OpaquePointer] = unsafe []
        for number in 0..<Self.count {
            let buffer = unsafe memory + Self.page + number * stride
            unsafe _ = mprotect(buffer + Self.room, Self.page, PROT_NONE)
            let mbuf = unsafe pool.allocator.allocate()!.release()
            unsafe apus_mbuf_place(mbuf, buffer, UInt16(Self.room))
            unsafe all.append(mbuf)
        }
        for unsafe mbuf in unsafe all { unsafe apus_mbuf_free(mbuf) }
    }

    var missing: Int { pool.missing }
    static var longest: Int { room }

    /// A packet with these bytes, a segment for each stretch between two of `splits`, which ascend.
    func packet(_ bytes: [UInt8], splits: [Int] = [], edge: Edge) -> Packet {
        let ends = splits + [bytes.count]
        let packet = segment(bytes[..<ends[0]], edge)
        for (from, to) in zip(ends, ends.dropFirst()) {
            let isChained = packet.chain(segment(bytes[from..<to], edge))
            precondition(isChained, "a chain of \(ends.count) segments")
        }
        return packet
    }

    private func segment(_ bytes: ArraySlice<UInt8>, _ edge: Edge) -> Packet {
        let packet = pool.allocator.allocate()!
        unsafe packet.setWindow(start: packet.buffer + (edge == .back ? Self.room - bytes.count : 0), count: bytes.count)
        if !bytes.isEmpty { unsafe bytes.withUnsafeBytes { unsafe packet.data.copyMemory(from: $0.baseAddress!, byteCount: $0.count) } }
        return packet
    }
}
