internal import CBPF
internal import Glibc
internal import Synchronization

/// What a map keeps alive.
final class Held: @unchecked Sendable {     // only reached under the lock
    private let lock = Mutex(())
    private var objects: [AnyObject] = []
    private struct User { weak var set: ProgramSet? }
    private var known: [User] = []

    func keep(_ object: AnyObject) {
        lock.withLock { _ in
            if !objects.contains(where: { $0 === object }) { objects.append(object) }
        }
    }

    /// The set's programs refer to the map.
    func isUsed(by set: ProgramSet) { lock.withLock { _ in known.append(User(set: set)) } }

    var users: [ProgramSet] { lock.withLock { _ in known.compactMap(\.set) } }

    var all: [AnyObject] { lock.withLock { _ in objects } }
}

/// The control side's operations, where they differ from a program's.
extension BPFMap {
    /// The address of CPU 0's value, 0 if there is none; marks nothing as used.
    func controlLookup(_ key: UInt64) -> UInt64 {
        let s = unsafe storage.pointee
        switch s.kind {
        case .array, .programs, .events, .mapArray:
            let at = s.arrayLookup(key)
            return s.kind == .array || at != 0 && Memory.load64(at) != 0 ? at : 0
        case .hash, .lruHash, .mapHash, .deviceHash: return s.hashLookup(key)
        default: return s.lookup(key)
        }
    }

    func controlUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        let s = unsafe storage.pointee
        // As the system call: BPF_F_LOCK only where there is a lock.
        if flags & MapStorage.locked != 0 && s.spinLockOffset < 0 { return -ErrorNumber.invalid }
        switch s.kind {
        case .array where s.cpuStride != 0: return s.perCPUArrayUpdate(key, value, flags)
        case .hash, .lruHash: return unsafe storage.pointee.hashUpdate(key, value, flags, allCPUs: true)
        case .queue, .stack: return unsafe storage.pointee.push(value, flags: flags)
        case .deviceArray: return deviceUpdate(key, value, flags)
        case .deviceHash: return deviceHashUpdate(key, value, flags)
        case .processors: return processorUpdate(key, value, flags)
        case .sockets: return socketUpdate(key, value, flags)
        case .ringBuffer: return -ErrorNumber.notSupportedInternally
        // Their values are objects: `setProgram`, `setMap`, `openEvents`.
        case .programs, .mapArray, .mapHash, .events: return -ErrorNumber.invalid
        default: return unsafe storage.pointee.update(key, value, flags: flags)
        }
    }

    func controlDelete(_ key: UInt64) -> Int64 {
        let s = unsafe storage.pointee
        switch s.kind {
        case .deviceArray, .processors, .sockets:
            let at = s.arrayLookup(key)
            if at == 0 { return -ErrorNumber.invalid }
            unsafe apus_release64(Memory.word64(at &+ 8), 0)
            return 0
        case .programs, .mapArray, .events:
            let at = s.arrayLookup(key)
            if at == 0 { return -ErrorNumber.tooBig }
            if Memory.load64(at) == 0 { return -ErrorNumber.noEntry }
            unsafe apus_release64(Memory.word64(at), 0)
            return 0
        case .deviceHash, .mapHash: return unsafe storage.pointee.hashDelete(key)
        case .ringBuffer: return -ErrorNumber.notSupportedInternally
        default: return unsafe storage.pointee.delete(key)
        }
    }

    // MARK: Redirection targets

    /// A slot holds the value and, behind it, whether it counts: the value first.
    private func setSlot(_ at: UInt64, _ value: UInt64, isThere: Bool) {
        var whole: UInt64 = 0
        for byte in 0..<UInt64(definition.valueSize) { whole |= UInt64(Memory.load8(value + byte)) << (8 * byte) }
        unsafe apus_release64(Memory.word64(at), whole)
        unsafe apus_release64(Memory.word64(at + 8), isThere ? 1 : 0)
    }

    /// Value: interface index, and optionally a program. Whether there is such a port is the dataplane's to say.
    private func deviceUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        if flags > 2 { return -ErrorNumber.invalid }
        let at = unsafe storage.pointee.arrayLookup(key)
        if at == 0 { return -ErrorNumber.tooBig }
        if flags == MapStorage.onlyNew { return -ErrorNumber.exists }
        let index = Memory.load32(value)
        if index == 0 && definition.valueSize == 8 && Int32(bitPattern: Memory.load32(value + 4)) > 0 { return -ErrorNumber.invalid }
        setSlot(at, value, isThere: index != 0)
        return 0
    }

    /// The kernel's device hash takes BPF_EXIST for any.
    private func deviceHashUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        if flags > 2 || Memory.load32(value) == 0 { return -ErrorNumber.invalid }
        return unsafe storage.pointee.hashUpdate(key, value, flags == MapStorage.onlyExisting ? 0 : flags, allCPUs: false)
    }

    /// Value: queue length, and optionally a program; a length of 0 removes the entry.
    private func processorUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        if flags > 2 { return -ErrorNumber.invalid }
        let at = unsafe storage.pointee.arrayLookup(key)
        if at == 0 { return -ErrorNumber.tooBig }
        if flags == MapStorage.onlyNew { return -ErrorNumber.exists }
        let length = Memory.load32(value)
        if length > 16384 { return -ErrorNumber.overflow }
        if Memory.load32(key) >= (unsafe storage.pointee.cpuCount) { return -ErrorNumber.noDevice }
        setSlot(at, value, isThere: length != 0)
        return 0
    }

    /// Value: in the kernel a socket, here whatever the host takes for one; 0 counts too.
    private func socketUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        if flags > 2 { return -ErrorNumber.invalid }
        let at = unsafe storage.pointee.arrayLookup(key)
        if at == 0 { return -ErrorNumber.tooBig }
        let isThere = Memory.load64(at + 8) != 0
        if isThere && flags == MapStorage.onlyNew { return -ErrorNumber.exists }
        if !isThere && flags == MapStorage.onlyExisting { return -ErrorNumber.noEntry }
        setSlot(at, value, isThere: true)
        return 0
    }

    // MARK: Maps and programs as values

    /// Puts `inner` into a map of maps. It must look like the template, except for the size where the kernel allows it.
    public func setMap(_ key: [UInt8], _ inner: BPFMap, _ mode: UpdateMode = .any) throws(MapError) {
        let kind = unsafe storage.pointee.kind
        guard kind == .mapArray || kind == .mapHash, let template = definition.inner.first,
              BPFMap.isInterchangeable(inner.definition, template) else { throw .invalid }
        held.keep(inner)
        try setObject(key, UInt64(UInt(bitPattern: unsafe inner.storage)), mode)
    }

    /// `bpf_map_meta_equal`: an array of another length only where its inner map said so.
    static func isInterchangeable(_ a: MapDefinition, _ b: MapDefinition) -> Bool {
        let isSame = a.type == b.type && a.keySize == b.keySize && a.valueSize == b.valueSize && a.flags == b.flags
            && a.spinLockOffset == b.spinLockOffset
        let isFixed = a.type == MapType.array && a.flags & MapFlag.innerMap == 0
        return isSame && (!isFixed || a.maxEntries == b.maxEntries)
    }

    /// `key` has the map's size.
    func setObject(_ key: [UInt8], _ object: UInt64, _ mode: UpdateMode) throws(MapError) {
        guard key.count == definition.keySize else { throw .wrongSize(expected: definition.keySize) }
        try result(withAddress(key) { key in
            if unsafe storage.pointee.kind == .mapHash {
                var value = object
                return unsafe withUnsafeBytes(of: &value) { unsafe storage.pointee.objectUpdate(key, UInt64(UInt(bitPattern: $0.baseAddress)), mode.rawValue) }
            }
            if mode != .any { return -ErrorNumber.invalid }
            let at = unsafe storage.pointee.arrayLookup(key)
            if at == 0 { return -ErrorNumber.tooBig }
            unsafe apus_release64(Memory.word64(at), object)
            return 0
        })
    }

    // MARK: Perf events

    /// Opens a ring of `bytes` (a power of 2, whole pages) for each CPU: from here on `bpf_perf_event_output` works.
    /// - Returns: false if there is no memory.
    public func openEvents(bytes: Int) -> Bool {
        let s = unsafe storage.pointee
        precondition(s.kind == .events && bytes >= 4096 && bytes & (bytes - 1) == 0)
        for index in 0..<min(s.maxEntries, s.cpuCount) {
            let at = s.table + UInt64(index) * UInt64(s.stride)
            guard Memory.load64(at) == 0 else { continue }
            guard let ring = RingBuffer(bytes: bytes) else { return false }
            let place = UnsafeMutablePointer<RingBuffer>.allocate(capacity: 1)
            unsafe place.initialize(to: ring)
            unsafe apus_release64(Memory.word64(at), UInt64(UInt(bitPattern: place)))
        }
        return true
    }

    private func eventRing(_ index: UInt32) -> UnsafeMutablePointer<RingBuffer>? {
        let s = unsafe storage.pointee
        guard s.kind == .events, index < s.maxEntries else { return nil }
        let at = unsafe apus_acquire64(Memory.word64(s.table + UInt64(index) * UInt64(s.stride)))
        return at == 0 ? nil : unsafe Memory.pointer(at).assumingMemoryBound(to: RingBuffer.self)
    }

    /// The next event of a CPU. One caller at a time.
    public func nextEvent(cpu: Int) -> [UInt8]? { unsafe eventRing(UInt32(cpu))?.pointee.next() }

    /// Events of a CPU that found no room.
    public func lostEvents(cpu: Int) -> UInt64 { unsafe eventRing(UInt32(cpu))?.pointee.lost ?? 0 }

    func closeEvents() {
        let s = unsafe storage.pointee
        guard s.kind == .events else { return }
        for index in 0..<s.maxEntries {
            guard let ring = unsafe eventRing(index) else { continue }
            unsafe ring.pointee.free()
            unsafe ring.deallocate()
        }
    }
}

extension MapStorage {
    /// A hash whose values are addresses: the 4 bytes declared stand for 8.
    mutating func objectUpdate(_ key: UInt64, _ value: UInt64, _ flags: UInt64) -> Int64 {
        let hash = self.hash(key)
        unsafe apus_lock(&lock)
        defer { unsafe apus_unlock(&lock) }
        // Existing entries change in place by one store: what readers hold stays a whole address.
        let old = find(key, hash)
        if old < MapStorage.end {
            if flags == MapStorage.onlyNew { return -ErrorNumber.exists }
            unsafe apus_release64(Memory.word64(self.value(old)), Memory.load64(value))
            return 0
        }
        return insertObject(key, value, flags, hash)
    }
}
