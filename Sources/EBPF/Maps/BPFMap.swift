internal import CBPF
internal import Glibc

/// Why an operation on a map failed, in the kernel's words.
public enum MapError: Error, Equatable, Sendable {
    case noSuchKey, keyExists, full, noSpace, invalid, frozen, noSuchDevice, overflow, notSupported
    case wrongSize(expected: Int)

    /// Negated, as the system call gives it.
    public var errorNumber: Int {
        switch self {
        case .noSuchKey: -2
        case .full: -7
        case .keyExists: -17
        case .noSuchDevice: -19
        case .noSpace: -28
        case .frozen: -1
        case .overflow: -75
        case .notSupported: -524
        case .invalid, .wrongSize: -22
        }
    }
}

/// A map: its memory, and the operations of the control side on keys and values as bytes. All memory is allocated and
/// touched here, so that lcores never wait for a page.
///
/// Sendable: stored fields never change but `held`, under a lock; what they point to is shared with lcores under the
/// rules of `MapStorage`. A value read while an lcore writes it may be half old, half new, as with the kernel's maps.
@safe public final class BPFMap: @unchecked Sendable {
    public let definition: MapDefinition
    /// Everything this map will ever take.
    public let memoryBytes: Int
    let storage: UnsafeMutablePointer<MapStorage>
    private let memory: UnsafeMutableRawPointer
    /// Programs and inner maps this map points to, and those it pointed to: a running program may still be in them.
    let held = Held()

    public var name: String { definition.name }

    /// What `flags` of an update may say: `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`.
    public enum UpdateMode: UInt64, Sendable { case any = 0, onlyNew, onlyExisting }

    /// `definition` has no obstacle. Nil: there is not enough memory.
    init?(_ definition: MapDefinition) {
        guard let layout = MapLayout(definition), let memory = unsafe layout.allocate() else { return nil }
        self.definition = definition
        unsafe self.memory = unsafe memory
        memoryBytes = layout.bytes + layout.ringBytes + MemoryLayout<MapStorage>.stride
        unsafe storage = .allocate(capacity: 1)
        unsafe storage.initialize(to: layout.storage(at: memory))
        unsafe layout.prepare(&storage.pointee)
        if layout.kind == .ringBuffer {
            guard let ring = RingBuffer(bytes: definition.maxEntries) else {
                unsafe storage.deallocate()
                unsafe Glibc.free(memory)
                return nil
            }
            unsafe storage.pointee.ring.initialize(to: ring)
        }
        if let contents = definition.contents {
            unsafe contents.withUnsafeBytes { unsafe memory.copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: $0.count) }
        }
    }

    deinit {
        if unsafe storage.pointee.kind == .ringBuffer { unsafe storage.pointee.ring.pointee.free() }
        closeEvents()
        unsafe storage.deallocate()
        unsafe free(memory)
    }

    /// How many entries there are; of an array, always all.
    public var count: Int {
        let s = unsafe storage.pointee
        return switch s.kind {
        case .hash, .lruHash, .mapHash, .deviceHash, .prefixTrie: Int(s.count)
        case .queue, .stack: s.queued
        case .ringBuffer: 0
        case .array: definition.maxEntries
        default: entries().count
        }
    }

    // MARK: One entry

    public func lookup(_ key: [UInt8]) throws(MapError) -> [UInt8]? {
        try check(key, definition.keySize)
        let kind = unsafe storage.pointee.kind
        if kind == .queue || kind == .stack {
            var value = [UInt8](repeating: 0, count: definition.valueSize)
            let found = unsafe value.withUnsafeMutableBytes { unsafe storage.pointee.take(UInt64(UInt(bitPattern: $0.baseAddress)), removes: false) }
            return found == 0 ? value : nil
        }
        if kind == .programs || kind == .events || kind == .ringBuffer { throw .notSupported }
        let address = withAddress(key) { controlLookup($0) }
        return address == 0 ? nil : controlValue(address)
    }

    public func update(_ key: [UInt8], _ value: [UInt8], _ mode: UpdateMode = .any) throws(MapError) {
        try update(key, value, flags: mode.rawValue)
    }

    /// With the kernel's flags as they are.
    public func update(_ key: [UInt8], _ value: [UInt8], flags: UInt64) throws(MapError) {
        try check(key, definition.keySize)
        try check(value, definition.controlValueSize)
        if definition.isFrozen || definition.flags & MapFlag.controlReadOnly != 0 { throw .frozen }
        try result(withAddress(key) { k in withAddress(value) { v in controlUpdate(k, v, flags) } })
    }

    public func delete(_ key: [UInt8]) throws(MapError) {
        try check(key, definition.keySize)
        if definition.isFrozen || definition.flags & MapFlag.controlReadOnly != 0 { throw .frozen }
        try result(withAddress(key) { controlDelete($0) })
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`: takes the entry out. Of a queue or stack, `key` is empty.
    public func take(_ key: [UInt8]) throws(MapError) -> [UInt8]? {
        let kind = unsafe storage.pointee.kind
        guard kind == .queue || kind == .stack else {
            guard kind == .hash || kind == .lruHash else { throw .notSupported }
            let value = try lookup(key)
            if value != nil { try delete(key) }
            return value
        }
        var value = [UInt8](repeating: 0, count: definition.valueSize)
        let code = unsafe value.withUnsafeMutableBytes { unsafe storage.pointee.take(UInt64(UInt(bitPattern: $0.baseAddress)), removes: true) }
        return code == 0 ? value : nil
    }

    // MARK: All entries

    /// All entries, in no order that means anything. Entries that come and go meanwhile may be missed. A writer waits
    /// for one bucket at most.
    public func entries() -> [(key: [UInt8], value: [UInt8])] {
        let s = unsafe storage.pointee
        switch s.kind {
        case .hash, .lruHash, .mapHash, .deviceHash:
            return (0...s.bucketMask).flatMap(bucket)
        case .prefixTrie:
            unsafe apus_lock(&storage.pointee.lock)
            defer { unsafe apus_unlock(&storage.pointee.lock) }
            return s.trieNodes().map { (bytes(s.trieKey($0), s.keySize), controlValue(s.value($0))) }
        case .queue, .stack, .ringBuffer:
            return []
        default:
            return (0..<s.maxEntries).compactMap { index in
                let key = (0..<4).map { UInt8(truncatingIfNeeded: index >> ($0 * 8)) }
                let address = withAddress(key) { controlLookup($0) }
                return address == 0 ? nil : (key, controlValue(address))
            }
        }
    }

    private func bucket(_ number: UInt32) -> [(key: [UInt8], value: [UInt8])] {
        let s = unsafe storage.pointee
        var entries: [(key: [UInt8], value: [UInt8])] = []
        unsafe apus_lock(&storage.pointee.lock)
        var link = unsafe s.buckets[Int(number)]
        while link < MapStorage.end {
            let node = s.node(link)
            entries.append((bytes(node + 8, s.keySize), controlValue(s.value(link))))
            link = Memory.load32(node)
        }
        unsafe apus_unlock(&storage.pointee.lock)
        return entries
    }

    /// Many updates at once, up to the first that fails.
    /// - Returns: how many were made.
    @discardableResult
    public func update(_ entries: [(key: [UInt8], value: [UInt8])], _ mode: UpdateMode = .any) throws(MapError) -> Int {
        for (key, value) in entries { try update(key, value, mode) }
        return entries.count
    }

    // MARK: Records

    /// The next record of a ring buffer. One caller at a time.
    public func nextRecord() -> [UInt8]? {
        unsafe storage.pointee.kind == .ringBuffer ? storage.pointee.ring.pointee.next() : nil
    }

    /// Records that found no room, since the map was made.
    public var lostRecords: UInt64 { unsafe storage.pointee.kind == .ringBuffer ? storage.pointee.ring.pointee.lost : 0 }

    // MARK: Inside

    private func check(_ bytes: [UInt8], _ size: Int) throws(MapError) {
        if bytes.count != size { throw .wrongSize(expected: size) }
    }

    func result(_ code: Int64) throws(MapError) {
        switch code {
        case 0: return
        case -ErrorNumber.noEntry: throw .noSuchKey
        case -ErrorNumber.exists: throw .keyExists
        case -ErrorNumber.tooBig: throw .full
        case -ErrorNumber.noSpace: throw .noSpace
        case -ErrorNumber.noDevice: throw .noSuchDevice
        case -ErrorNumber.overflow: throw .overflow
        case -ErrorNumber.notSupportedInternally: throw .notSupported
        default: throw .invalid
        }
    }

    func withAddress<Result>(_ bytes: [UInt8], _ body: (UInt64) -> Result) -> Result {
        // An empty array has no address; a map without keys looks at none.
        unsafe bytes.withUnsafeBytes { body(UInt64(UInt(bitPattern: $0.baseAddress))) }
    }

    func bytes(_ address: UInt64, _ count: Int) -> [UInt8] {
        unsafe Array(UnsafeRawBufferPointer(start: Memory.pointer(address), count: count))
    }

    /// What the control side sees of a value: every CPU's, or the value with its spin lock masked out.
    private func controlValue(_ address: UInt64) -> [UInt8] {
        let s = unsafe storage.pointee
        guard s.cpuStride == 0 else {
            let padding = [UInt8](repeating: 0, count: (8 - s.valueSize % 8) % 8)
            return (0..<UInt64(s.cpuCount)).flatMap { bytes(address + $0 * UInt64(s.cpuStride), s.valueSize) + padding }
        }
        var value = bytes(address, s.valueSize)
        if s.spinLockOffset >= 0 {
            for at in s.spinLockOffset..<(s.spinLockOffset + 4) { value[at] = 0 }
        }
        return value
    }
}
