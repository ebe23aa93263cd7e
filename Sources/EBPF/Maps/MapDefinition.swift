/// A map as an object declares it.
public struct MapDefinition: Equatable, Sendable {
    public let name: String
    /// `enum bpf_map_type`
    public let type: UInt32
    public let keySize: Int
    public let valueSize: Int
    public let maxEntries: Int
    public let flags: UInt32
    /// A data section (`.rodata`, `.data`, `.bss`): an array map of one value with these contents.
    let contents: [UInt8]?

    static let hash: UInt32 = 1, array: UInt32 = 2
    /// The verifier took the contents for constants: nobody may change them afterwards.
    static let readOnlyForPrograms: UInt32 = 1 << 7

    var isDataSection: Bool { contents != nil }
    var isFrozen: Bool { isDataSection && flags & MapDefinition.readOnlyForPrograms != 0 }

    /// Nil if the engine can create it, else what is wrong with it.
    var obstacle: String? {
        guard type == MapDefinition.hash || type == MapDefinition.array else {
            return "maps of type \(KernelNames.mapType(type)) are not supported yet (array and hash are)"
        }
        if maxEntries < 1 || maxEntries > 1 << 28 { return "max_entries \(maxEntries) is not within 1 to \(1 << 28)" }
        if type == MapDefinition.array && keySize != 4 { return "the key of an array has 4 bytes, not \(keySize)" }
        if keySize < 1 || keySize > 512 { return "a key of \(keySize) bytes is not within 1 to 512" }
        if valueSize < 1 || valueSize > 1 << 26 { return "a value of \(valueSize) bytes is not within 1 to \(1 << 26)" }
        return nil
    }
}
