internal import CBPF
internal import Glibc

/// Why an operation on a map failed, in the kernel's words.
public enum MapError: Error, Equatable, Sendable {
    case noSuchKey, keyExists, full, invalid, frozen
    case wrongSize(expected: Int)
}

/// A map: its memory, and the operations of the control side on keys and values as bytes. All memory is allocated and
/// touched here, so that lcores never wait for a page.
///
/// Sendable: stored fields never change; what they point to is shared with lcores under the rules of `MapStorage`.
/// A value read while an lcore writes it may be half old, half new, as with the kernel's maps.
@safe public final class BPFMap: @unchecked Sendable {
    public let definition: MapDefinition
    /// Everything this map will ever take.
    public let memoryBytes: Int
    let storage: UnsafeMutablePointer<MapStorage>
    private let memory: UnsafeMutableRawPointer

    public var name: String { definition.name }

    /// What `flags` of an update may say: `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`.
    public enum UpdateMode: UInt64, Sendable { case any = 0, onlyNew, onlyExisting }

    /// `definition` has no obstacle. Nil: there is not enough memory.
    init?(_ definition: MapDefinition) {
        let isHash = definition.type == MapDefinition.hash
        func round8(_ n: Int) -> Int { (n + 7) & ~7 }
        let valueOffset = isHash ? 8 + round8(definition.keySize) : 0
        let stride = valueOffset + round8(definition.valueSize)
        // The kernel has one spare node a CPU; here updates are serialised, and one does.
        let nodes = isHash ? definition.maxEntries + 1 : definition.maxEntries
        let bucketCount = isHash ? 1 << (Int.bitWidth - (definition.maxEntries - 1).leadingZeroBitCount) : 0
        // Within an Int: at most 2^28 entries of 2^26 + 1 KiB.
        let bytes = nodes * stride + bucketCount * 4
        var allocated: UnsafeMutableRawPointer? = nil
        guard unsafe posix_memalign(&allocated, 64, bytes) == 0, let memory = unsafe allocated else { return nil }
        unsafe memset(memory, 0, bytes)
        self.definition = definition
        unsafe self.memory = unsafe memory
        memoryBytes = bytes + MemoryLayout<MapStorage>.stride
        unsafe storage = .allocate(capacity: 1)
        let buckets = unsafe (memory + nodes * stride).assumingMemoryBound(to: UInt32.self)
        let table = UInt64(UInt(bitPattern: memory))
        for bucket in 0..<bucketCount { unsafe buckets[bucket] = MapStorage.end | UInt32(bucket) }
        if isHash {
            for node in 0..<UInt32(definition.maxEntries) {
                let isLast = node + 1 == definition.maxEntries
                Memory.store32(table + UInt64(node) * UInt64(stride), UInt64(isLast ? UInt32.max : node + 1))
            }
        }
        unsafe storage.initialize(to: MapStorage(
            isHash: isHash, keySize: definition.keySize, valueSize: definition.valueSize, stride: stride,
            maxEntries: UInt32(definition.maxEntries), table: table, valueOffset: valueOffset, buckets: buckets,
            bucketMask: UInt32(max(bucketCount, 1) - 1), seed: .random(in: .min ... .max), free: 0,
            spare: UInt32(definition.maxEntries)))
        if let contents = definition.contents {
            unsafe contents.withUnsafeBytes { unsafe memory.copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: $0.count) }
        }
    }

    deinit {
        unsafe storage.deallocate()
        unsafe free(memory)
    }

    /// How many entries there are; of an array, always all.
    public var count: Int { unsafe storage.pointee.isHash ? Int(storage.pointee.count) : definition.maxEntries }

    public func lookup(_ key: [UInt8]) throws(MapError) -> [UInt8]? {
        try check(key, definition.keySize)
        let address = withAddress(key) { unsafe storage.pointee.lookup($0) }
        return address == 0 ? nil : bytes(address, definition.valueSize)
    }

    public func update(_ key: [UInt8], _ value: [UInt8], _ mode: UpdateMode = .any) throws(MapError) {
        try check(key, definition.keySize)
        try check(value, definition.valueSize)
        if definition.isFrozen { throw .frozen }
        try result(withAddress(key) { k in withAddress(value) { v in unsafe storage.pointee.update(k, v, flags: mode.rawValue) } })
    }

    public func delete(_ key: [UInt8]) throws(MapError) {
        try check(key, definition.keySize)
        try result(withAddress(key) { unsafe storage.pointee.delete($0) })
    }

    /// All entries, in no order that means anything. Entries that come and go meanwhile may be missed.
    public func entries() -> [(key: [UInt8], value: [UInt8])] {
        let s = unsafe storage.pointee
        guard s.isHash else {
            return (0..<s.maxEntries).map { index in
                ((0..<4).map { UInt8(truncatingIfNeeded: index >> ($0 * 8)) }, bytes(s.table + UInt64(index) * UInt64(s.stride), s.valueSize))
            }
        }
        var entries: [(key: [UInt8], value: [UInt8])] = []
        unsafe apus_lock(&storage.pointee.lock)
        for bucket in 0...s.bucketMask {
            var link = unsafe s.buckets[Int(bucket)]
            while link < MapStorage.end {
                let node = s.node(link)
                entries.append((bytes(node + 8, s.keySize), bytes(node + UInt64(s.valueOffset), s.valueSize)))
                link = Memory.load32(node)
            }
        }
        unsafe apus_unlock(&storage.pointee.lock)
        return entries
    }

    private func check(_ bytes: [UInt8], _ size: Int) throws(MapError) {
        if bytes.count != size { throw .wrongSize(expected: size) }
    }

    private func result(_ code: Int64) throws(MapError) {
        switch code {
        case 0: return
        case -ErrorNumber.noEntry: throw .noSuchKey
        case -ErrorNumber.exists: throw .keyExists
        case -ErrorNumber.tooBig: throw .full
        default: throw .invalid
        }
    }

    private func withAddress<Result>(_ bytes: [UInt8], _ body: (UInt64) -> Result) -> Result {
        unsafe bytes.withUnsafeBytes { body(UInt64(UInt(bitPattern: $0.baseAddress))) }
    }

    private func bytes(_ address: UInt64, _ count: Int) -> [UInt8] {
        unsafe Array(UnsafeRawBufferPointer(start: Memory.pointer(address), count: count))
    }
}
