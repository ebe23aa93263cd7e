import CDPDK
import Wire

/// A pool of packet buffers, one size each.
///
/// Freed with the value; the caller ends every lcore first.
@safe public struct PacketPool: ~Copyable {
    let mempool: OpaquePointer
    public let name: String
    /// Buffers in the pool.
    public let capacity: Int
    /// The NUMA node of its memory; nil: any.
    public let node: Int?

    /// The largest buffer an mbuf can describe (buf_len has 16 bits).
    public static var largestRoom: Int { 65_535 }

    /// Bytes left free behind each buffer. The largest buffers would follow each other at 64 KiB and 3 cache lines, so that
    /// what is used of all of them, their first lines, would have to share a few sets of the second cache. With these they
    /// lie 33 lines apart, and spread over all; an mbuf and the packet's first bytes stay in one page.
    public static func spacing(room: Int) -> Int { room == largestRoom ? 1920 : 0 }

    /// - Parameters:
    ///   - room: bytes of one buffer, headroom included; at most ``largestRoom``.
    ///   - cache: buffers each lcore may keep for itself.
    ///   - node: the NUMA node that gives the memory; nil: any.
    public init(name: String, capacity: Int, room: Int, cache: Int, node: Int? = nil) throws(DPDKError) {
        precondition(room <= Self.largestRoom, "a buffer of \(room) bytes does not fit an mbuf")
        guard let pool = unsafe apus_pool_create(name, UInt32(capacity), UInt32(cache), UInt16(room), UInt32(Self.spacing(room: room)),
                                                 Int32(bitPattern: socketNumber(node))) else {
            let place = node.map { " on NUMA node \($0)" } ?? ""
            throw DPDKError("cannot create the packet pool '\(name)' of \(capacity) buffers of \(room) bytes\(place)", apus_errno(),
                            remedy: "lower [apus] memory, or reserve more hugepages")
        }
        unsafe mempool = pool
        self.name = name
        self.capacity = capacity
        self.node = node
    }

    deinit { unsafe rte_mempool_free(mempool) }

    /// Buffers that are not in the pool now. Exact only while no lcore runs.
    public var missing: Int { unsafe capacity - Int(rte_mempool_avail_count(mempool)) }

    public var use: PoolUse { PoolUse(self) }

    /// What lcores hold of it.
    public var allocator: PacketAllocator { unsafe PacketAllocator(mempool: mempool) }
}

/// DPDK's number of a NUMA node.
func socketNumber(_ node: Int?) -> UInt32 { node.map { UInt32($0) } ?? apus_socket_any() }

/// How full a ``PacketPool`` is, asked from any thread while lcores run.
@safe public struct PoolUse: @unchecked Sendable {
    // @unchecked: the library counts with atomic loads, and the pool outlives the value.
    let mempool: OpaquePointer
    public let name: String
    public let capacity: Int

    init(_ pool: borrowing PacketPool) {
        unsafe mempool = pool.mempool
        name = pool.name
        capacity = pool.capacity
    }

    /// Buffers in packets and in drivers' rings, not those that lcores keep for themselves; off by what moves meanwhile.
    public var used: Int { unsafe max(0, capacity - Int(rte_mempool_avail_count(mempool))) }
}

/// Allocates from a ``PacketPool`` that outlives it. Trivial, for lcores.
@safe public struct PacketAllocator {
    let mempool: OpaquePointer

    init(mempool: OpaquePointer) { unsafe self.mempool = mempool }

    /// A packet without bytes, state `none`; nil when the pool is empty.
    @_noLocks public func allocate() -> Packet? {
        guard let mbuf = unsafe apus_mbuf_allocate(mempool) else { return nil }
        let packet = unsafe Packet(taking: mbuf)
        packet.state = .none
        return packet
    }
}
