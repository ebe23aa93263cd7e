import DPDK

/// How `[apus] memory` is shared out, and what pages it is made of.
struct MemoryPlan: Equatable {
    let memory: EAL.Memory
    /// Buffers that hold a whole superframe each.
    let largeCount: Int
    /// Buffers for everything else.
    let smallCount: Int

    /// For the pools that ports have for themselves.
    let ownBytes: Int
    /// A burst of superframes for each of a few ports.
    var isEnough: Bool { largeCount >= 128 }

    /// Buffers of a pool that an AF_XDP queue has for itself.
    static let ownPoolBuffers = 4096

    /// What own pools leave: three quarters for superframes, an eighth for small packets; the rest is for rings and the
    /// library.
    init(bytes: Int, ownPoolCount: Int, memory: EAL.Memory) {
        self.memory = memory
        let small = Self.bytes(ofBuffer: TapQueue.smallRoom, memory), large = Self.bytes(ofBuffer: PacketPool.largestRoom, memory)
        ownBytes = ownPoolCount * Self.ownPoolBuffers * small
        let shared = max(bytes - ownBytes, 0)
        largeCount = min(shared / 4 * 3 / large, 8192)
        smallCount = min(shared / 8 / small, 131_072)
    }

    /// The pool adds mbuf header, private area and cache-line padding, under 384 bytes; and it lets no buffer cross a page
    /// that it could fit into (rte_mempool_op_calc_mem_size_helper), which counts where pages are small.
    private static func bytes(ofBuffer room: Int, _ memory: EAL.Memory) -> Int {
        guard case .normalPages = memory else { return room + 384 }
        return (room + 384 + 4095) & ~4095
    }
}
