internal import CBPF

/// A map as an object declares it.
public struct MapDefinition: Equatable, Sendable, Codable {
    public let name: String
    /// `enum bpf_map_type`
    public let type: UInt32
    public var keySize: Int
    public var valueSize: Int
    public var maxEntries: Int
    public let flags: UInt32
    /// A data section (`.rodata`, `.data`, `.bss`, `.kconfig`): an array map of one value with these contents.
    var contents: [UInt8]?
    /// Where in the value a `struct bpf_spin_lock` lies.
    var spinLockOffset: Int?
    /// Of a map of maps: what its inner maps look like. None or one.
    var inner: [MapDefinition] = []
    /// Static contents of a program array or a map of maps, by place: names of programs or maps of the object.
    var initial: [Int: String] = [:]
    /// Given by the operator instead of the object's; 0: not.
    var sizedEntries = 0
    /// Ids of the key's and the value's type in the object's BTF, 0 where it does not say.
    var keyType: UInt32 = 0
    var valueType: UInt32 = 0
    /// What those types say, for people.
    public internal(set) var keyLayout: ValueLayout?
    public internal(set) var valueLayout: ValueLayout?

    static let hash = MapType.hash, array = MapType.array
    /// The verifier took the contents for constants: nobody may change them afterwards.
    static let readOnlyForPrograms = MapFlag.programReadOnly

    init(name: String, type: UInt32, keySize: Int, valueSize: Int, maxEntries: Int, flags: UInt32, contents: [UInt8]? = nil) {
        self.name = name
        self.type = type
        self.keySize = keySize
        self.valueSize = valueSize
        self.maxEntries = maxEntries
        self.flags = flags
        self.contents = contents
    }

    public var typeName: String { KernelNames.mapType(type) }
    public var isPerCPU: Bool { MapType.isPerCPU(type) }
    var isDataSection: Bool { contents != nil }
    var isFrozen: Bool { isDataSection && flags & MapDefinition.readOnlyForPrograms != 0 }

    /// Bytes of a value as the control side sees it: of a per-CPU map one after the other, each rounded up to 8.
    public var controlValueSize: Int { isPerCPU ? (valueSize + 7) / 8 * 8 * Int(apus_possible_cpus()) : valueSize }

    /// Nil if the engine can create it, else what is wrong with it.
    var obstacle: String? {
        guard let kind = MapKind(type) else { return "maps of type \(KernelNames.mapType(type)) are not supported" }
        if maxEntries < 1 || maxEntries > 1 << 28 { return "max_entries \(maxEntries) is not within 1 to \(1 << 28)" }
        let unknown = flags & ~MapFlag.allowed(type)
        if unknown != 0 { return "a map of type \(typeName) has no flag 0x\(String(unknown, radix: 16))" }
        if flags & MapFlag.programReadOnly != 0 && flags & MapFlag.programWriteOnly != 0 { return "it is read-only and write-only for programs" }
        if let inner = inner.first, let obstacle = inner.obstacle { return "its inner map: \(obstacle)" }
        return keyObstacle(kind) ?? valueObstacle(kind)
    }

    private func keyObstacle(_ kind: MapKind) -> String? {
        switch kind {
        case .array, .programs, .events, .mapArray, .deviceArray, .processors, .sockets, .deviceHash:
            return keySize == 4 ? nil : "the key of a map of type \(typeName) has 4 bytes, not \(keySize)"
        case .queue, .stack, .ringBuffer:
            return keySize == 0 ? nil : "a map of type \(typeName) has no key, not one of \(keySize) bytes"
        case .prefixTrie:
            if flags & MapFlag.noPrealloc == 0 { return "an LPM trie needs the flag BPF_F_NO_PREALLOC" }
            return 5...260 ~= keySize ? nil : "a key of \(keySize) bytes is not within 5 to 260"
        case .hash, .lruHash, .mapHash:
            return 1...65_536 ~= keySize ? nil : "a key of \(keySize) bytes is not within 1 to 65536"
        }
    }

    private func valueObstacle(_ kind: MapKind) -> String? {
        switch kind {
        case .programs, .events, .mapArray, .mapHash, .sockets:
            return valueSize == 4 ? nil : "the value of a map of type \(typeName) has 4 bytes, not \(valueSize)"
        case .deviceArray, .deviceHash, .processors:
            return valueSize == 4 || valueSize == 8 ? nil : "the value of a map of type \(typeName) has 4 or 8 bytes, not \(valueSize)"
        case .ringBuffer:
            guard valueSize == 0 else { return "a ring buffer has no value, not one of \(valueSize) bytes" }
            let isPowerOf2 = maxEntries & (maxEntries - 1) == 0
            return isPowerOf2 && maxEntries >= 4096 ? nil : "the size of a ring buffer is a power of 2 from 4096 bytes up, not \(maxEntries)"
        default:
            let limit = isPerCPU ? 32 << 10 : 1 << 26      // the kernel's PCPU_MIN_UNIT_SIZE
            if valueSize < 1 || valueSize > limit { return "a value of \(valueSize) bytes is not within 1 to \(limit)" }
            // 64 GiB in total: a definition that is meant.
            let total = (valueSize + keySize + 48).multipliedReportingOverflow(by: maxEntries)
            return !total.overflow && total.partialValue <= 1 << 36 ? nil : "it would take more than 64 GiB"
        }
    }
}
