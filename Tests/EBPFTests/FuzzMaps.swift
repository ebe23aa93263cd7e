@testable import EBPF

/// The maps of every program of the fuzzer. Kept cases name them by place: new ones go to the end.
enum FuzzMap: Int, CaseIterable, Sendable {
    case global, array, hash, own, ownHash, lru, trie, queue, stack, ring, programs, outer, inner, otherInner, devices, events

    static let valueSize = 16, globalSize = 64
    /// Slots of `programs` and of `outer`; the last of each is empty.
    static let slots = 4

    var definition: MapDefinition {
        switch self {
        case .global: make(type: MapType.array, key: 4, value: FuzzMap.globalSize, entries: 1)
        case .array: make(type: MapType.array, key: 4, entries: 4)
        case .hash: make(type: MapType.hash, key: 8, entries: 6)
        case .own: make(type: MapType.perCPUArray, key: 4, entries: 3)
        case .ownHash: make(type: MapType.perCPUHash, key: 8, entries: 5)
        // With room for all keys: whom the kernel evicts is its own affair.
        case .lru: make(type: MapType.lruHash, key: 8, entries: 400)
        case .trie: make(type: MapType.prefixTrie, key: 8, entries: 12, flags: MapFlag.noPrealloc)
        case .queue: make(type: MapType.queue, key: 0, entries: 4)
        case .stack: make(type: MapType.stack, key: 0, entries: 4)
        case .ring: make(type: MapType.ringBuffer, key: 0, value: 0, entries: 4096)
        case .programs: make(type: MapType.programs, key: 4, value: 4, entries: FuzzMap.slots, initial: [0: "touch", 1: "again", 2: "leave"])
        case .outer: make(type: MapType.mapArray, key: 4, value: 4, entries: FuzzMap.slots, initial: [0: "inner", 1: "otherInner", 2: "inner"])
        case .inner, .otherInner: make(type: MapType.array, key: 4, entries: 2)
        case .devices: make(type: MapType.deviceArray, key: 4, value: 4, entries: 4)
        case .events: make(type: MapType.events, key: 4, value: 4, entries: 2)
        }
    }

    private func make(type: UInt32, key: Int, value: Int = FuzzMap.valueSize, entries: Int, flags: UInt32 = 0,
                      initial: [Int: String] = [:]) -> MapDefinition {
        var definition = MapDefinition(name: "\(self)", type: type, keySize: key, valueSize: value, maxEntries: entries, flags: flags)
        definition.initial = initial
        if self == .outer { definition.inner = [FuzzMap.inner.definition] }
        return definition
    }

    static let definitions = allCases.map(\.definition)

    /// Values that lie in one array of fixed places: pointers to them stay good whatever is updated.
    var isStable: Bool { [.global, .array, .own, .inner, .otherInner].contains(self) }
    /// `bpf_map_lookup_elem` gives a value that programs may change.
    var isTable: Bool { isStable || [.hash, .ownHash, .lru, .trie].contains(self) }
    var valueSize: Int { definition.valueSize }

    /// What each map starts with: numbers where arithmetic goes wrong first.
    var entries: [(key: [UInt8], value: [UInt8])] {
        switch self {
        case .global: [(FuzzMap.key4(0), FuzzMap.words(1, 8))]
        case .array, .inner, .otherInner, .own: (0..<definition.maxEntries).map { (FuzzMap.key4($0), control(FuzzMap.words(3 + $0 + rawValue, 2))) }
        case .hash, .ownHash, .lru: (0..<4).map { (FuzzMap.key4($0) + [0, 0, 0, 0], control(FuzzMap.words(7 + $0, 2))) }
        case .trie: [([8, 0, 0, 0, 10, 0, 0, 0], FuzzMap.words(2, 2)), ([24, 0, 0, 0, 10, 0, 1, 0], FuzzMap.words(4, 2)), ([0, 0, 0, 0, 0, 0, 0, 0], FuzzMap.words(5, 2))]
        case .queue, .stack: [([], FuzzMap.words(9, 2)), ([], FuzzMap.words(11, 2))]
        case .devices: [(FuzzMap.key4(0), [1, 0, 0, 0]), (FuzzMap.key4(2), [1, 0, 0, 0])]    // lo
        case .ring, .programs, .outer, .events: []
        }
    }

    /// As the control side writes it: the value of every CPU.
    private func control(_ value: [UInt8]) -> [UInt8] {
        Array(repeating: value, count: definition.controlValueSize / value.count).flatMap { $0 }
    }

    static func key4(_ index: Int) -> [UInt8] { [UInt8(index), 0, 0, 0] }

    static let corners: [UInt64] = [
        0, 1, 0xffff_ffff_ffff_ffff, 0x8000_0000_0000_0000, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_8000_0000, 0x8000_0000, 0x7fff_ffff,
        0xffff_ffff, 0x1_0000_0000, 2, 0xff, 0x80, 0x8000, 0xffff, 63, 31, 0x0123_4567_89ab_cdef,
    ]

    private static func words(_ start: Int, _ count: Int) -> [UInt8] {
        Asm.words((0..<count).map { corners[(start * 5 + $0) % corners.count] })
    }
}

/// Programs in the slots of `programs`. They call for nothing but the packet, the maps and each other.
enum FuzzTargets {
    static let names = ["touch", "again", "leave"]

    static func map(_ register: UInt8, _ map: FuzzMap, value: Int32? = nil) -> [Instruction] {
        [Instruction(opcode: 0x18, destination: register, source: value == nil ? PseudoSource.mapFD : PseudoSource.mapValue, immediate: Int32(map.rawValue)),
         Instruction(opcode: 0, immediate: value ?? 0)]
    }

    static func code(_ name: String) -> [Instruction] {
        switch name {
        // Changes the first byte of the packet and answers with it.
        case "touch": return [Asm.load(Asm.word, 2, 1, 0), Asm.load(Asm.word, 3, 1, 4), Asm.mov(4, 2), Asm.alu(0x07, 4, imm: 1), Asm.mov(0, imm: 1),
                              Asm.alu(0x2d, 4, 3, offset: 3), Asm.load(Asm.byte, 0, 2, 0), Asm.alu(0x07, 0, imm: 7), Asm.store(Asm.byte, 2, 0, 0), Asm.exit]
        // Counts, and calls itself until nobody lets it.
        case "again": return map(2, .global, value: 56) + [Asm.load(Asm.double, 3, 2, 0), Asm.alu(0x07, 3, imm: 1), Asm.store(Asm.double, 2, 0, 3)]
            + map(2, .programs) + [Asm.mov(3, imm: 1), Asm.call(12)] + map(2, .global, value: 56) + [Asm.load(Asm.double, 0, 2, 0), Asm.exit]
        default: return [Asm.mov(0, imm: 0x77), Asm.exit]
        }
    }
}
