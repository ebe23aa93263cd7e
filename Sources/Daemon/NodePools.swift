import DPDK

/// The packet buffers that lie on one NUMA node, or wherever they lie where nodes are not told apart.
final class NodePools {
    let small: PacketPool
    let large: PacketPool

    /// - Parameters:
    ///   - isOnly: no other node has pools, whose names have to differ.
    ///   - lcoreCount: how many may keep some of them.
    init(_ share: MemoryPlan.Share, isOnly: Bool, lcoreCount: Int) throws(DPDKError) {
        let suffix = isOnly ? "" : share.node.map { "-\($0)" } ?? ""
        small = try PacketPool(name: "small\(suffix)", capacity: share.smallCount, room: TapQueue.smallRoom, cache: 256, node: share.node)
        // An lcore's cache holds what a few bursts take and give back: where it does not, each burst goes through the pool's
        // ring, which hands out all buffers in turn, so that none is ever in the CPU's cache.
        large = try PacketPool(name: "large\(suffix)", capacity: share.largeCount, room: PacketPool.largestRoom,
                               cache: min(256, share.largeCount / (6 * lcoreCount)), node: share.node)
    }

    var memory: PacketMemory {
        PacketMemory(small: small.allocator, large: large.allocator, smallBytes: TapQueue.smallFrameMax)
    }

    var summary: String {
        "\(small.capacity) buffers of \(TapQueue.smallRoom) bytes, \(large.capacity) of \(PacketPool.largestRoom)"
            + (large.node.map { ", on NUMA node \($0)" } ?? "")
    }
}
