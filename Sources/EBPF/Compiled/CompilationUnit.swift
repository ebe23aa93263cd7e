/// A program as the compiler gets it: decoded instructions with the maps' addresses in place, and what the analysis
/// found out about them. Valid as long as the `LoadedProgram` it was taken from.
package struct CompilationUnit {
    package let name: String
    /// The last one is `invalid`: falling off the end.
    package let code: [DecodedInstruction]
    package let isSandboxed: Bool
    /// It runs over bare memory: r1 and r2 are its address and size.
    package let isRaw: Bool
    /// No store is tracked.
    package var isReadOnly: Bool
    /// Some instruction asks for a finished checksum.
    package let watchesChecksum: Bool
    /// Stores that can reach the packet, by instruction, with the bytes they can touch from the arrival's first; nil: any
    /// store can, anywhere.
    package let stores: [Int: ByteRange]?
    /// Of `stores`: those that always reach the packet.
    package let certainStores: Set<Int>
    package let isProvedInBounds: [Bool]
    /// By the address a program knows the map by.
    package let maps: [UInt64: MapShape]
    /// Where the program's `ProgramImage` is.
    package let image: UInt64

    init(_ linked: LinkedProgram, _ code: [DecodedInstruction], _ analysis: Analysis, maps: [BPFMap], image: UInt64, isSandboxed: Bool, isRaw: Bool) {
        name = linked.program.name
        // The analysis may be newer than the code.
        var code = code
        for (at, marks) in analysis.marks.enumerated() where code.indices.contains(at) { code[at].marks = marks.rawValue }
        self.code = code
        self.isSandboxed = isSandboxed
        self.isRaw = isRaw
        isReadOnly = analysis.isReadOnly
        watchesChecksum = analysis.asks
        stores = analysis.limit == nil ? Dictionary(analysis.stores.map { ($0.instruction, $0.fromData) }) { $1 } : nil
        certainStores = Set(analysis.stores.filter(\.isCertain).map(\.instruction))
        isProvedInBounds = analysis.limit == nil ? analysis.isProvedInBounds : [Bool](repeating: false, count: code.count)
        self.maps = Dictionary(uniqueKeysWithValues: maps.map { (UInt64(UInt(bitPattern: unsafe $0.storage)), unsafe MapShape($0.storage.pointee)) })
        self.image = image
    }
}

/// What never changes about a map: compiled code holds it as constants.
package struct MapShape {
    package let kind: MapKind
    package let keySize, valueSize, stride: Int
    package let maxEntries: UInt32
    package let table: UInt64
    package let cpuStride: Int
    package let cpuValues: UInt64
    package let cpuCount: UInt32
    package let valueOffset: Int
    package let buckets: UInt64
    package let bucketMask: UInt32
    package let seed: UInt64
    package let recency: UInt64
    /// Of a hash: where its changes are counted.
    package var changes: UInt64 { buckets + 4 * (UInt64(bucketMask) + 1) }

    init(_ storage: MapStorage) {
        kind = storage.kind
        (keySize, valueSize, stride) = (storage.keySize, storage.valueSize, storage.stride)
        maxEntries = storage.maxEntries
        table = storage.table
        cpuStride = storage.cpuStride
        cpuValues = storage.cpuValues
        cpuCount = storage.cpuCount
        valueOffset = storage.valueOffset
        buckets = UInt64(UInt(bitPattern: unsafe storage.buckets))
        bucketMask = storage.bucketMask
        seed = storage.seed
        recency = UInt64(UInt(bitPattern: unsafe storage.recency))
    }
}
