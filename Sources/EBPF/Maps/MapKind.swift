/// How a map works: what the kernel's map types come down to here.
package enum MapKind: UInt8, Sendable {
    case array, hash, lruHash, prefixTrie, queue, stack, ringBuffer
    /// Values that programs cannot write and the control side gives as something else than bytes.
    case programs, events, mapArray, mapHash
    /// Containers of redirection targets.
    case deviceArray, deviceHash, processors, sockets

    /// By `enum bpf_map_type`; whether each CPU has a value of its own comes with it.
    init?(_ type: UInt32) {
        switch type {
        case MapType.array, MapType.perCPUArray: self = .array
        case MapType.hash, MapType.perCPUHash: self = .hash
        case MapType.lruHash, MapType.lruPerCPUHash: self = .lruHash
        case MapType.prefixTrie: self = .prefixTrie
        case MapType.queue: self = .queue
        case MapType.stack: self = .stack
        case MapType.ringBuffer: self = .ringBuffer
        case MapType.programs: self = .programs
        case MapType.events: self = .events
        case MapType.mapArray: self = .mapArray
        case MapType.mapHash: self = .mapHash
        case MapType.deviceArray: self = .deviceArray
        case MapType.deviceHash: self = .deviceHash
        case MapType.processors: self = .processors
        case MapType.sockets: self = .sockets
        default: return nil
        }
    }

    /// Entries live in the nodes of a hash table.
    var isHash: Bool {
        @_noLocks @inline(__always) get { self == .hash || self == .lruHash || self == .mapHash || self == .deviceHash }
    }

    /// Entries are found by their number and are always there, empty or not.
    var isIndexed: Bool {
        @_noLocks @inline(__always) get {
            switch self {
            case .array, .programs, .events, .mapArray, .deviceArray, .processors, .sockets: true
            default: false
            }
        }
    }
}

/// `enum bpf_map_type`, those the engine has.
enum MapType {
    static let hash: UInt32 = 1, array: UInt32 = 2, programs: UInt32 = 3, events: UInt32 = 4
    static let perCPUHash: UInt32 = 5, perCPUArray: UInt32 = 6, lruHash: UInt32 = 9, lruPerCPUHash: UInt32 = 10
    static let prefixTrie: UInt32 = 11, mapArray: UInt32 = 12, mapHash: UInt32 = 13, deviceArray: UInt32 = 14
    static let processors: UInt32 = 16, sockets: UInt32 = 17, queue: UInt32 = 22, stack: UInt32 = 23
    static let deviceHash: UInt32 = 25, ringBuffer: UInt32 = 27

    static func isPerCPU(_ type: UInt32) -> Bool { [perCPUHash, perCPUArray, lruPerCPUHash].contains(type) }
}

/// `BPF_F_*` at a map's creation (include/uapi/linux/bpf.h).
enum MapFlag {
    static let noPrealloc: UInt32 = 1 << 0, noCommonLRU: UInt32 = 1 << 1, numaNode: UInt32 = 1 << 2
    static let controlReadOnly: UInt32 = 1 << 3, controlWriteOnly: UInt32 = 1 << 4, zeroSeed: UInt32 = 1 << 6
    static let programReadOnly: UInt32 = 1 << 7, programWriteOnly: UInt32 = 1 << 8, mmapable: UInt32 = 1 << 10
    static let preserveElements: UInt32 = 1 << 11, innerMap: UInt32 = 1 << 12

    private static let access = controlReadOnly | controlWriteOnly | programReadOnly | programWriteOnly

    /// Those the kernel takes for a map type; where they only tune the kernel's memory they change nothing here.
    static func allowed(_ type: UInt32) -> UInt32 {
        switch type {
        case MapType.array: access | numaNode | mmapable | preserveElements | innerMap
        case MapType.perCPUArray: access | numaNode
        case MapType.hash, MapType.perCPUHash: access | numaNode | noPrealloc | zeroSeed
        case MapType.lruHash, MapType.lruPerCPUHash: access | numaNode | noCommonLRU | zeroSeed
        case MapType.mapHash: access | numaNode | noPrealloc | zeroSeed
        case MapType.prefixTrie: access | numaNode | noPrealloc
        case MapType.queue, MapType.stack: access | numaNode
        case MapType.ringBuffer: numaNode
        case MapType.mapArray, MapType.programs: numaNode | controlReadOnly | controlWriteOnly
        case MapType.events: numaNode | controlReadOnly | controlWriteOnly | preserveElements
        case MapType.processors: numaNode
        case MapType.sockets, MapType.deviceArray, MapType.deviceHash: numaNode | controlReadOnly | controlWriteOnly
        default: 0
        }
    }
}
