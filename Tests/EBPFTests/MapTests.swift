import CBPF
import Foundation
import Synchronization
import Testing

@testable import EBPF

/// Maps by the kernel's rules: flags and error numbers, capacity, contents, against the kernel's own maps.
@Suite struct MapTests {
    static func definition(_ type: UInt32, key: Int = 4, value: Int = 8, entries: Int) -> MapDefinition {
        MapDefinition(name: "m", type: type, keySize: key, valueSize: value, maxEntries: entries, flags: 0, contents: nil)
    }

    private func map(_ definition: MapDefinition) throws -> BPFMap { try #require(BPFMap(definition)) }

    /// The engine's answer as the system call's: 0 or a negated error number.
    private func code(_ body: () throws(MapError) -> Void) -> Int32 {
        do { try body() } catch {
            switch error {
            case .noSuchKey: return -2
            case .full: return -7
            case .keyExists: return -17
            default: return -22
            }
        }
        return 0
    }

    /// Random operations on few keys, most of the time near the limit.
    @Test(arguments: [1, 3, 4, 7, 12, 16, 33], [1, 8, 20]) func hashEqualsTheKernel(_ keySize: Int, _ valueSize: Int) throws {
        let entries = 9
        let map = try map(MapTests.definition(1, key: keySize, value: valueSize, entries: entries))
        let fd = apus_map_create(1, UInt32(keySize), UInt32(valueSize), UInt32(entries), 0)
        try #require(fd >= 0)
        defer { apus_close(fd) }
        var random = SplitMix(UInt64(keySize * 100 + valueSize))
        var full = 0
        for _ in 0..<3000 {
            var key = [UInt8](repeating: 0x11, count: keySize)
            key[keySize - 1] = UInt8.random(in: 0..<14, using: &random)
            let value = (0..<valueSize).map { _ in UInt8.random(in: 0...255, using: &random) }
            if Int.random(in: 0..<4, using: &random) == 0 {
                try #require(code { () throws(MapError) in try map.delete(key) } == (unsafe apus_map_delete(fd, key)))
            } else {
                let mode = BPFMap.UpdateMode(rawValue: UInt64.random(in: 0...2, using: &random))!
                let ours = code { () throws(MapError) in try map.update(key, value, mode) }
                try #require(ours == (unsafe apus_map_update(fd, key, value, mode.rawValue)))
                if ours == -7 { full += 1 }
            }
            var theirs = [UInt8](repeating: 0, count: valueSize)
            let found = unsafe apus_map_lookup(fd, key, &theirs) == 0
            try #require(try map.lookup(key) == (found ? theirs : nil))
        }
        #expect(full > 50)
        var next = [UInt8](repeating: 0, count: keySize), kernel: Set<[UInt8]> = []
        var error = unsafe apus_map_next_key(fd, nil, &next)
        while error == 0 {
            kernel.insert(next)
            let key = next
            error = unsafe apus_map_next_key(fd, key, &next)
        }
        #expect(Set(map.contents.keys) == kernel)
        #expect(map.count == kernel.count)
    }

    @Test func arrayEqualsTheKernel() throws {
        let map = try map(MapTests.definition(2, value: 5, entries: 6))
        let fd = apus_map_create(2, 4, 5, 6, 0)
        try #require(fd >= 0)
        defer { apus_close(fd) }
        var random = SplitMix(9)
        for _ in 0..<500 {
            let key: [UInt8] = [UInt8.random(in: 0..<8, using: &random), 0, 0, Int.random(in: 0..<9, using: &random) == 0 ? 1 : 0]
            let value = (0..<5).map { _ in UInt8.random(in: 0...255, using: &random) }
            let mode = BPFMap.UpdateMode(rawValue: UInt64.random(in: 0...2, using: &random))!
            try #require(code { () throws(MapError) in try map.update(key, value, mode) } == (unsafe apus_map_update(fd, key, value, mode.rawValue)))
            try #require(code { () throws(MapError) in try map.delete(key) } == (unsafe apus_map_delete(fd, key)))
            var theirs = [UInt8](repeating: 0, count: 5)
            let found = unsafe apus_map_lookup(fd, key, &theirs) == 0
            try #require(try map.lookup(key) == (found ? theirs : nil))
        }
        #expect(map.entries().count == 6)
    }

    /// A large table, filled to the brim, emptied and filled again: every key found, none invented, memory as announced.
    @Test func hashHoldsWhatItPromises() throws {
        let entries = 5000
        let map = try map(MapTests.definition(1, key: 8, value: 8, entries: entries))
        #expect(map.memoryBytes < entries * 40 + 8192 * 4 + 256)
        func key(_ i: Int) -> [UInt8] { Asm.words([UInt64(i) << 32]) }
        for round in 1...3 {
            for i in 0..<entries { try map.update(key(i), Asm.words([UInt64(i * round)]), .onlyNew) }
            #expect(throws: MapError.full) { try map.update(key(entries), Asm.words([1])) }
            try map.update(key(7), Asm.words([UInt64(7 * round)]), .onlyExisting)      // full, but replaces
            for i in 0..<entries { try #require(try map.lookup(key(i)) == Asm.words([UInt64(i * round)])) }
            #expect(try map.lookup(key(entries)) == nil)
            #expect(map.count == entries)
            for i in 0..<entries { try map.delete(key(i)) }
            #expect(map.entries().isEmpty)
        }
    }

    @Test func wrongSizesAndFrozenMapsAreRefused() throws {
        let map = try map(MapTests.definition(1, entries: 2))
        #expect(throws: MapError.wrongSize(expected: 4)) { try map.lookup([1]) }
        #expect(throws: MapError.wrongSize(expected: 8)) { try map.update([1, 0, 0, 0], [1]) }
        let data = try #require(BPFMap(MapDefinition(name: ".rodata", type: 2, keySize: 4, valueSize: 3, maxEntries: 1,
                                                     flags: MapDefinition.readOnlyForPrograms, contents: [1, 2, 3])))
        #expect(try data.lookup([0, 0, 0, 0]) == [1, 2, 3])
        #expect(throws: MapError.frozen) { try data.update([0, 0, 0, 0], [3, 2, 1]) }
    }

    private final class Flag: Sendable { let isSet = Atomic(false) }

    /// A writer on a thread of its own (tasks may wait for each other), readers here until it is done: a resident key
    /// is found every time, whatever happens to it and to its neighbours.
    @Test func readersNeverMiss() throws {
        let map = try map(MapTests.definition(1, key: 4, value: 8, entries: 16))
        let resident: [UInt8] = [200, 0, 0, 0]
        try map.update(resident, Asm.words([1]))
        let done = Flag()
        Thread.detachNewThread {
            var random = SplitMix(1)
            for i in 0..<200_000 {
                let key: [UInt8] = [UInt8.random(in: 0..<15, using: &random), 0, 0, 0]
                if i % 8 == 0 { try? map.delete(key) }
                if i % 8 == 4 { try? map.update(key, Asm.words([7])) }
                try? map.update(resident, [1, 2, 3, 4, 5, 6, 7, 8])
            }
            done.isSet.store(true, ordering: .releasing)
        }
        var misses = 0, lookups = 0
        while !done.isSet.load(ordering: .acquiring) {
            unsafe resident.withUnsafeBytes { key in
                for _ in 0..<100 where unsafe map.storage.pointee.lookup(UInt64(UInt(bitPattern: key.baseAddress))) == 0 { misses += 1 }
            }
            lookups += 100
        }
        #expect(misses == 0)
        #expect(lookups > 1000)
    }
}
