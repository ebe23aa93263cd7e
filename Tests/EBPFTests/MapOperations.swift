import CBPF
import Testing

@testable import EBPF

/// Every map type by the kernel's rules: the same random operations on a map of the kernel's and on ours, equal answers
/// after each.
@Suite struct MapOperations {
    struct Kind: CustomStringConvertible {
        let description: String
        let type: UInt32
        var key = 4
        var value = 8
        var entries = 6
        var flags: UInt32 = 0
        /// Of keys that make sense for it.
        let keys: @Sendable (inout SplitMix) -> [UInt8]
        var values: (@Sendable (inout SplitMix) -> [UInt8])? = nil
        /// Which error numbers must have come up.
        let errors: Set<Int>
        /// Whether what is in it can be compared: not where the kernel chooses whom to evict.
        var isComparable = true
    }

    private static func index(_ limit: UInt8) -> @Sendable (inout SplitMix) -> [UInt8] {
        { [UInt8.random(in: 0..<limit, using: &$0), 0, 0, Int.random(in: 0..<20, using: &$0) == 0 ? 1 : 0] }
    }

    /// Prefixes of few addresses, so that they nest.
    private static func prefix(_ bytes: Int) -> @Sendable (inout SplitMix) -> [UInt8] {
        { random in
            let length = UInt8.random(in: 0...UInt8(8 * bytes + 1), using: &random)
            return [length, 0, 0, 0] + (0..<bytes).map { _ in [0, 1, 0x80, 0xff, 0xf0].randomElement(using: &random)! }
        }
    }

    static let kinds: [Kind] = [
        Kind(description: "hash", type: 1, keys: index(10), errors: [0, -2, -7, -17, -22]),
        Kind(description: "hash, no preallocation", type: 1, flags: 1, keys: index(10), errors: [0, -2, -7, -17, -22]),
        Kind(description: "array", type: 2, keys: index(8), errors: [0, -7, -17, -22]),
        Kind(description: "per-CPU array", type: 6, value: 12, keys: index(8), errors: [0, -7, -17, -22]),
        Kind(description: "per-CPU hash", type: 5, value: 12, keys: index(10), errors: [0, -2, -7, -17, -22]),
        Kind(description: "LRU hash with room", type: 9, entries: 400, keys: index(12), errors: [0, -2, -17, -22]),
        Kind(description: "LRU per-CPU hash with room", type: 10, value: 16, entries: 400, keys: index(12), errors: [0, -2, -17, -22]),
        Kind(description: "LPM trie of 4 bytes", type: 11, key: 8, entries: 12, flags: 1, keys: prefix(4), errors: [0, -2, -17, -22, -28]),
        Kind(description: "LPM trie of 16 bytes", type: 11, key: 20, value: 3, entries: 20, flags: 1, keys: prefix(16), errors: [0, -2, -22, -28]),
        Kind(description: "LPM trie of 1 byte", type: 11, key: 5, value: 1, entries: 5, flags: 1, keys: prefix(1), errors: [0, -2, -17, -22, -28]),
        Kind(description: "device map", type: 14, value: 4, keys: index(8), values: { [UInt8.random(in: 0...1, using: &$0), 0, 0, 0] },
             errors: [0, -7, -17, -22]),
        Kind(description: "device map, wide", type: 14, value: 8, keys: index(8),
             values: { [UInt8.random(in: 0...1, using: &$0), 0, 0, 0, 0, 0, 0, 0] }, errors: [0, -7, -17, -22]),
        Kind(description: "device hash", type: 25, value: 4, entries: 4, keys: index(7), values: { [UInt8.random(in: 0...1, using: &$0), 0, 0, 0] },
             errors: [0, -2, -7, -17, -22]),
        Kind(description: "CPU map", type: 16, value: 4, entries: 3, keys: index(4),
             values: { [[0, 0, 0, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0x41, 0, 0]].randomElement(using: &$0)! }, errors: [0, -7, -17, -22, -75]),
    ]

    private func code(_ body: () throws(MapError) -> Void) -> Int {
        do { try body() } catch { return error.errorNumber }
        return 0
    }

    @Test(arguments: kinds) func equalTheKernel(_ kind: Kind) throws {
        let map = try #require(BPFMap(MapDefinition(name: "m", type: kind.type, keySize: kind.key, valueSize: kind.value,
                                                    maxEntries: kind.entries, flags: kind.flags)))
        #expect(map.definition.obstacle == nil)
        let fd = apus_map_create(kind.type, UInt32(kind.key), UInt32(kind.value), UInt32(kind.entries), kind.flags)
        try #require(fd >= 0)
        defer { apus_close(fd) }
        let size = map.definition.controlValueSize
        var random = SplitMix(UInt64(kind.type) * 1000 + UInt64(kind.key * 10 + kind.value))
        var errors: Set<Int> = []
        for step in 0..<6000 {
            let key = kind.keys(&random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0, 1:
                let ours = code { () throws(MapError) in try map.delete(key) }
                try #require(ours == Int(unsafe apus_map_delete(fd, key)), "delete \(key), step \(step)")
                errors.insert(ours)
            case 2...5:
                // Flags: mostly sense, some nonsense.
                let flags: UInt64 = [0, 0, 0, 1, 2, 3, 4, 9].randomElement(using: &random)!
                var value = kind.values?(&random) ?? (0..<size).map { _ in UInt8.random(in: 0...255, using: &random) }
                // Padding between CPUs' values is not the value's.
                if map.definition.isPerCPU {
                    for at in 0..<size where at % ((kind.value + 7) & ~7) >= kind.value { value[at] = 0 }
                }
                let ours = code { () throws(MapError) in try map.update(key, value, flags: flags) }
                try #require(ours == Int(unsafe apus_map_update(fd, key, value, flags)), "update \(key) \(value) flags \(flags), step \(step)")
                errors.insert(ours)
            default: break
            }
            var theirs = [UInt8](repeating: 0, count: size)
            let found = unsafe apus_map_lookup(fd, key, &theirs) == 0
            let ours = try map.lookup(key)
            try #require(ours == (found ? theirs : nil), "lookup \(key), step \(step)")
            if step % 500 == 0 { try #require(map.contents == MapOperations.contents(fd, kind.key, size)) }
        }
        // ENODEV of a CPU map depends on how many CPUs this machine has.
        #expect(errors.subtracting([-19]) == kind.errors)
        #expect(map.contents == MapOperations.contents(fd, kind.key, size))
    }

    static func contents(_ fd: Int32, _ keySize: Int, _ valueSize: Int) -> [[UInt8]: [UInt8]] {
        var result: [[UInt8]: [UInt8]] = [:]
        var key = [UInt8](repeating: 0, count: keySize), next = key, value = [UInt8](repeating: 0, count: valueSize)
        var error = unsafe apus_map_next_key(fd, nil, &next)
        while error == 0 {
            key = next
            if unsafe apus_map_lookup(fd, key, &value) == 0 { result[key] = value }
            error = unsafe apus_map_next_key(fd, key, &next)
        }
        return result
    }

    /// Queues and stacks, through the system calls that stand for push, peek and pop.
    @Test(arguments: [UInt32(22), 23]) func queuesEqualTheKernel(_ type: UInt32) throws {
        let map = try #require(BPFMap(MapDefinition(name: "m", type: type, keySize: 0, valueSize: 5, maxEntries: 4, flags: 0)))
        let fd = apus_map_create(type, 0, 5, 4, 0)
        try #require(fd >= 0)
        defer { apus_close(fd) }
        var random = SplitMix(UInt64(type))
        var errors: Set<Int> = [], emptied = 0
        for step in 0..<6000 {
            var theirs = [UInt8](repeating: 0, count: 5)
            // By turns more comes and more goes.
            switch Int.random(in: 0..<5, using: &random) + (step / 50 % 2) * 2 {
            case 0, 1, 2:
                let value = (0..<5).map { _ in UInt8.random(in: 0...255, using: &random) }
                let flags: UInt64 = [0, 0, 1, 2, 7].randomElement(using: &random)!
                let ours = code { () throws(MapError) in try map.update([], value, flags: flags) }
                try #require(ours == Int(unsafe apus_map_update(fd, nil, value, flags)))
                errors.insert(ours)
            case 3, 5, 6:
                let found = unsafe apus_map_take(fd, nil, &theirs) == 0
                try #require(try map.take([]) == (found ? theirs : nil))
                if !found { emptied += 1 }
            default:
                let found = unsafe apus_map_lookup(fd, nil, &theirs) == 0
                try #require(try map.lookup([]) == (found ? theirs : nil))
            }
        }
        #expect(errors == [0, -7, -22])
        #expect(emptied > 50)
    }

    /// Definitions the kernel refuses are refused, and those it takes are taken.
    @Test func definitionsEqualTheKernel() throws {
        var random = SplitMix(77)
        var taken = 0, refused = 0
        for _ in 0..<3000 {
            let type = UInt32([1, 2, 5, 6, 9, 10, 11, 14, 16, 17, 22, 23, 25, 27, 3, 4].randomElement(using: &random)!)
            let definition = MapDefinition(
                name: "m", type: type, keySize: [0, 1, 4, 4, 4, 5, 8, 20, 512, 513].randomElement(using: &random)!,
                valueSize: [0, 1, 4, 4, 8, 8, 100, 40_000].randomElement(using: &random)!,
                maxEntries: [0, 1, 4, 5, 4096, 8192].randomElement(using: &random)!,
                flags: [0, 0, 0, 0, 1, 1, 2, 8, 16, 64, 128, 256, 384, 1024, 1 << 20].randomElement(using: &random)!)
            // What takes the kernel long or much memory, and a device map's value of 40 000 bytes, show nothing more.
            if definition.valueSize == 40_000 && definition.maxEntries > 5 { continue }
            // How many CPUs a CPU map may have is the kernel's configuration.
            if type == MapType.processors && definition.maxEntries > 5 { continue }
            let fd = apus_map_create(type, UInt32(definition.keySize), UInt32(definition.valueSize), UInt32(definition.maxEntries), definition.flags)
            if fd >= 0 { apus_close(fd) }
            #expect((definition.obstacle == nil) == (fd >= 0), "\(definition): kernel \(fd), \(definition.obstacle ?? "taken")")
            if fd >= 0 { taken += 1 } else { refused += 1 }
        }
        #expect(taken > 300 && refused > 300)
    }

    // MARK: LRU, which the kernel's own cannot judge: it evicts many at once, and not the oldest

    private func key(_ i: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: i >> (8 * $0)) } }

    /// A program's lookup: the control side's counts for nothing.
    private func use(_ map: BPFMap, _ i: Int) -> Bool {
        unsafe key(i).withUnsafeBytes { unsafe map.storage.pointee.lookup(UInt64(UInt(bitPattern: $0.baseAddress!))) != 0 }
    }

    @Test(arguments: [UInt32(9), 10], [1, 2, 3, 7, 64, 1000]) func evictsOnlyWhenFull(_ type: UInt32, _ entries: Int) throws {
        let map = try #require(BPFMap(MapDefinition(name: "m", type: type, keySize: 4, valueSize: 8, maxEntries: entries, flags: 0)))
        let value = [UInt8](repeating: 1, count: map.definition.controlValueSize)
        for i in 0..<entries { try map.update(key(i), value, .onlyNew) }
        for i in 0..<entries { #expect(use(map, i)) }
        // Updates of what is there evict nobody.
        for i in 0..<entries { try map.update(key(i), value, .onlyExisting) }
        #expect(map.count == entries)
        for i in entries..<(5 * entries) {
            try map.update(key(i), value)
            try #require(map.count == entries && map.contents[key(i)] != nil)
        }
        // Room made by hand is used before anyone is evicted.
        let left = Set(map.contents.keys)
        let gone = try #require(left.first)
        try map.delete(gone)
        try map.update(key(1 << 20), value)
        #expect(Set(map.contents.keys) == left.subtracting([gone]).union([key(1 << 20)]))
    }

    /// One used entry among many that were only inserted, wherever the hand stands: it survives the next insert.
    @Test(arguments: [2, 3, 5, 16, 100]) func usedEntrySurvivesOneInsert(_ entries: Int) throws {
        let map = try #require(BPFMap(MapDefinition(name: "m", type: 9, keySize: 4, valueSize: 8, maxEntries: entries, flags: 0)))
        let value = [UInt8](repeating: 1, count: 8)
        for i in 0..<entries { try map.update(key(i), value) }
        var random = SplitMix(UInt64(entries)), next = entries
        for _ in 0..<2000 {
            let resident = try #require(map.contents.keys.randomElement(using: &random))
            #expect(use(map, Int(resident[0]) | Int(resident[1]) << 8 | Int(resident[2]) << 16))
            if Int.random(in: 0..<5, using: &random) == 0 {
                // A hole somewhere: the insert after it evicts nobody, the one after that must not take the used one.
                let other = map.contents.keys.first { $0 != resident }!
                try map.delete(other)
                try map.update(key(next), value)
                next += 1
            }
            try map.update(key(next), value)
            next += 1
            try #require(map.contents[resident] != nil)
        }
    }

    /// Entries whose values were replaced, all of them, and often: they are evicted in their turn, and the search ends.
    @Test(.timeLimit(.minutes(60)), arguments: [UInt32(9), 10], [1, 2, 3, 4, 5, 16]) func replacedEntriesAgeToo(_ type: UInt32, _ entries: Int) throws {
        let map = try #require(BPFMap(MapDefinition(name: "m", type: type, keySize: 4, valueSize: 8, maxEntries: entries, flags: 0)))
        let value = [UInt8](repeating: 1, count: map.definition.controlValueSize)
        for i in 0..<entries { try map.update(key(i), value) }
        for i in 0..<entries { try map.update(key(i), value) }
        for i in 0..<(4 * entries) { try map.update(key(1000 + i), value) }
        #expect((0..<entries).allSatisfy { map.contents[key($0)] == nil })
        var random = SplitMix(UInt64(entries))
        for _ in 0..<3000 {
            let chosen = key(Int.random(in: 0...entries, using: &random))
            try map.update(chosen, value)
            try #require(map.count <= entries && map.contents[chosen] != nil)
        }
    }

    // MARK: Maps of maps, locks, memory

    @Test func innerMapsMustFit() throws {
        var definition = MapDefinition(name: "outer", type: 12, keySize: 4, valueSize: 4, maxEntries: 3, flags: 0)
        definition.inner = [MapDefinition(name: "inner", type: 1, keySize: 4, valueSize: 8, maxEntries: 5, flags: 0)]
        let outer = try #require(BPFMap(definition))
        let fitting = try #require(BPFMap(MapDefinition(name: "a", type: 1, keySize: 4, valueSize: 8, maxEntries: 50, flags: 0)))
        let other = try #require(BPFMap(MapDefinition(name: "b", type: 1, keySize: 4, valueSize: 4, maxEntries: 5, flags: 0)))
        try outer.setMap([1, 0, 0, 0], fitting)
        #expect(throws: MapError.invalid) { try outer.setMap([1, 0, 0, 0], other) }
        #expect(throws: MapError.full) { try outer.setMap([3, 0, 0, 0], fitting) }
        #expect(throws: MapError.noSuchKey) { try outer.delete([0, 0, 0, 0]) }
        try outer.delete([1, 0, 0, 0])
        definition = MapDefinition(name: "outer", type: 13, keySize: 8, valueSize: 4, maxEntries: 2, flags: 0)
        definition.inner = [MapDefinition(name: "inner", type: 2, keySize: 4, valueSize: 8, maxEntries: 5, flags: 0)]
        let hash = try #require(BPFMap(definition))
        let array = try #require(BPFMap(MapDefinition(name: "c", type: 2, keySize: 4, valueSize: 8, maxEntries: 5, flags: 0)))
        let longer = try #require(BPFMap(MapDefinition(name: "d", type: 2, keySize: 4, valueSize: 8, maxEntries: 6, flags: 0)))
        for i in UInt8(0)..<2 { try hash.setMap([i, 0, 0, 0, 0, 0, 0, 0], array, .onlyNew) }
        #expect(throws: MapError.full) { try hash.setMap([9, 0, 0, 0, 0, 0, 0, 0], array) }
        #expect(throws: MapError.keyExists) { try hash.setMap([1, 0, 0, 0, 0, 0, 0, 0], array, .onlyNew) }
        #expect(throws: MapError.invalid) { try hash.setMap([1, 0, 0, 0, 0, 0, 0, 0], longer) }
    }

    /// What a map takes is what its definition says, and no operation takes more.
    @Test func memoryIsReported() throws {
        for kind in MapOperations.kinds {
            let definition = MapDefinition(name: "m", type: kind.type, keySize: kind.key, valueSize: kind.value, maxEntries: 1000, flags: kind.flags)
            let map = try #require(BPFMap(definition))
            let cpus = definition.isPerCPU ? Int(apus_possible_cpus()) : 1
            let payload = 1000 * kind.value * cpus
            #expect(map.memoryBytes >= payload, "\(kind)")
            #expect(map.memoryBytes < 1000 * (2 * (kind.key + 32) + 2 * (kind.value + 8) * cpus) + 4096, "\(kind)")
        }
    }

    /// One writer, one reader: a route that is always there is always found, whatever is set and deleted around it.
    @Test func trieReadersNeverMiss() async throws {
        let map = try #require(BPFMap(MapDefinition(name: "m", type: 11, keySize: 8, valueSize: 8, maxEntries: 64, flags: 1)))
        let resident: [UInt8] = [16, 0, 0, 0, 10, 1, 0, 0], address: [UInt8] = [32, 0, 0, 0, 10, 1, 200, 200]
        try map.update(resident, [UInt8](repeating: 7, count: 8))
        let writer = Task.detached {
            var random = SplitMix(3)
            for _ in 0..<150_000 {
                let length = UInt8.random(in: 0...24, using: &random)
                let key: [UInt8] = [length, 0, 0, 0, 10, [1, 1, 0, 3].randomElement(using: &random)!, UInt8.random(in: 0..<100, using: &random), 0]
                if key == resident { continue }
                if Bool.random(using: &random) { try? map.delete(key) } else { try? map.update(key, [UInt8](repeating: 9, count: 8)) }
                try map.update(resident, [UInt8](repeating: 7, count: 8))
            }
        }
        var misses = 0
        for _ in 0..<400_000 where try map.lookup(address) == nil { misses += 1 }
        try await writer.value
        #expect(misses == 0)
        #expect(try map.lookup(address) == [UInt8](repeating: 7, count: 8))
    }
}
