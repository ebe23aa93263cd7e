import DPDK

/// How `[apus] memory` is shared out, and what pages it is made of.
struct MemoryPlan: Equatable {
    let memory: EAL.Memory
    /// Buffers that hold a whole superframe each.
    let largeCount: Int
    /// Buffers for everything else.
    let smallCount: Int

    /// Three quarters for superframes, an eighth for small packets; the rest is for rings and the library.
    init(bytes: Int, memory: EAL.Memory) {
        self.memory = memory
        // Per buffer the pool adds its mbuf header, private area and cache-line padding: under 384 bytes.
        largeCount = min(bytes / 4 * 3 / (PacketPool.largestRoom + 384), 8192)
        smallCount = min(bytes / 8 / (TapQueue.smallRoom + 384), 131_072)
    }
}
