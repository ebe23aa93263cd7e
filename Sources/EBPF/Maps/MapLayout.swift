internal import CBPF
internal import Glibc

/// Where the parts of a map lie in its one piece of memory.
struct MapLayout {
    let kind: MapKind
    let bytes: Int
    /// Mapped apart.
    let ringBytes: Int
    private let definition: MapDefinition
    private let stride: Int
    private let valueOffset: Int
    private let nodes: Int
    private let bucketCount: Int
    private let cpuCount: Int
    private let cpuStride: Int
    private let cpuValuesOffset: Int
    private let bucketsOffset: Int
    private let recencyOffset: Int

    private static func round8(_ n: Int) -> Int { (n + 7) & ~7 }

    /// Nil for what no definition without obstacle has.
    init?(_ definition: MapDefinition) {
        guard let kind = MapKind(definition.type) else { return nil }
        self.kind = kind
        self.definition = definition
        let entries = definition.maxEntries
        let isPerCPU = definition.isPerCPU
        cpuCount = Int(apus_possible_cpus())
        let value = MapLayout.round8(definition.valueSize)
        switch kind {
        case .hash, .lruHash, .mapHash, .deviceHash:
            // The kernel has one spare node a CPU; here updates are serialised, and one does.
            nodes = entries + 1
            valueOffset = 8 + MapLayout.round8(definition.keySize)
            stride = valueOffset + (isPerCPU ? 0 : max(value, 8))
            bucketCount = 1 << (Int.bitWidth - (entries - 1).leadingZeroBitCount)
        case .prefixTrie:
            // A node a prefix, a branch for all but one of them, and two an update needs before it gives one back.
            nodes = 2 * entries + 1
            valueOffset = MapLayout.round8(Int(MapStorage.trieKeyOffset) + definition.keySize)
            stride = valueOffset + value
            bucketCount = 2
        case .queue, .stack:
            (nodes, valueOffset, stride, bucketCount) = (entries + 1, 0, value, 0)
        case .deviceArray, .processors, .sockets:
            // The value, and whether there is one.
            (nodes, valueOffset, stride, bucketCount) = (entries, 0, 16, 0)
        case .ringBuffer:
            (nodes, valueOffset, stride, bucketCount) = (1, 0, MemoryLayout<RingBuffer>.stride, 0)
        case .array, .programs, .events, .mapArray:
            (nodes, valueOffset, stride, bucketCount) = (entries, 0, max(value, 8), 0)
        }
        // Each CPU's values in cache lines of their own.
        let perCPU = (kind.isHash ? nodes * value : nodes * stride) + 63 & ~63
        cpuStride = isPerCPU ? perCPU : 0
        let tableBytes = isPerCPU && !kind.isHash ? cpuStride * cpuCount : nodes * stride
        cpuValuesOffset = (tableBytes + 63) & ~63
        let cpuBytes = isPerCPU && kind.isHash ? cpuStride * cpuCount : 0
        bucketsOffset = cpuValuesOffset + cpuBytes
        // Behind a hash's buckets stands the count of its changes.
        recencyOffset = bucketsOffset + (bucketCount + (kind.isHash ? 1 : 0)) * 4
        bytes = recencyOffset + (kind == .lruHash ? nodes : 0)
        ringBytes = kind == .ringBuffer ? entries : 0
    }

    /// Zeroed, every page touched.
    @unsafe func allocate() -> UnsafeMutableRawPointer? {
        var allocated: UnsafeMutableRawPointer? = nil
        guard unsafe posix_memalign(&allocated, 64, max(bytes, 64)) == 0, let memory = unsafe allocated else { return nil }
        unsafe memset(memory, 0, bytes)
        return unsafe memory
    }

    @unsafe func storage(at memory: UnsafeMutableRawPointer) -> MapStorage {
        let table = UInt64(UInt(bitPattern: memory))
        let seed: UInt64 = definition.flags & MapFlag.zeroSeed != 0 ? 0 : .random(in: .min ... .max)
        return unsafe MapStorage(
            kind: kind, keySize: definition.keySize, valueSize: definition.valueSize, stride: stride,
            maxEntries: UInt32(definition.maxEntries), table: table, cpuStride: cpuStride,
            cpuValues: table + UInt64(cpuValuesOffset), cpuCount: UInt32(cpuCount),
            spinLockOffset: definition.spinLockOffset ?? -1, valueOffset: valueOffset,
            buckets: (memory + bucketsOffset).assumingMemoryBound(to: UInt32.self),
            bucketMask: UInt32(max(kind.isHash ? bucketCount : 1, 1) - 1), seed: seed,
            recency: (memory + recencyOffset).assumingMemoryBound(to: UInt8.self), free: 0,
            spare: UInt32(definition.maxEntries))
    }

    /// Chains of free nodes, and empty buckets.
    func prepare(_ storage: inout MapStorage) {
        if kind == .prefixTrie { return storage.linkTrieNodes(UInt32(nodes)) }
        guard kind.isHash else { return }
        for bucket in 0..<bucketCount { unsafe storage.buckets[bucket] = MapStorage.end | UInt32(bucket) }
        for node in 0..<UInt32(definition.maxEntries) {
            let isLast = node + 1 == definition.maxEntries
            Memory.store32(storage.node(node), UInt64(isLast ? UInt32.max : node + 1))
        }
        if kind == .lruHash {
            for node in 0..<nodes { unsafe storage.recency[node] = 0xff }
        }
    }
}
