/// A verified program with its maps, ready to run. It outlives every `Interpreter` taken from it.
@safe public final class LoadedProgram: @unchecked Sendable {     // nothing changes after init but the maps, which may
    public let name: String
    public let section: String
    /// Written for packets of several segments, so that superframes may be shown to it.
    public let isFragsAware: Bool
    /// Instructions, a 64-bit load counted twice.
    public let instructions: Int
    /// The maps the program refers to, in the object's order; data sections by their section's name.
    public let maps: [BPFMap]
    /// False only if no store, atomic or adjusting helper it contains can reach a packet.
    public let canWrite: Bool
    private let code: UnsafeMutablePointer<DecodedInstruction>
    private let linked: LinkedProgram

    init(_ linked: LinkedProgram) throws(LoadError) {
        var (slots, references) = try Decoder.decode(linked)
        var maps: [Int: BPFMap] = [:]
        for reference in references where maps[reference.map] == nil {
            guard linked.maps.indices.contains(reference.map), linked.maps[reference.map].obstacle == nil else {
                throw linked.error(.malformed, at: reference.slot, "refers to map \(reference.map), which is not there")
            }
            guard let map = BPFMap(linked.maps[reference.map]) else {
                throw linked.error(.unsupported, at: reference.slot, "not enough memory for map \(linked.maps[reference.map].name)")
            }
            maps[reference.map] = map
        }
        for reference in references {
            guard let map = maps[reference.map] else { continue }
            slots[reference.slot].immediate = unsafe reference.valueOffset.map { unsafe map.storage.pointee.table + UInt64($0) }
                ?? UInt64(UInt(bitPattern: map.storage))
        }
        name = linked.program.name
        section = linked.section
        isFragsAware = LoadedProgram.isFragsAware(section: section)
        instructions = linked.instructions.count
        self.maps = maps.sorted { $0.key < $1.key }.map(\.value)
        canWrite = WriteScan.canWrite(slots)
        self.linked = linked
        unsafe code = .allocate(capacity: slots.count)
        unsafe code.initialize(from: slots, count: slots.count)
    }

    deinit { unsafe code.deallocate() }

    /// Valid as long as this program lives: that is what the caller vouches for. Taking it does not retain the program,
    /// which may be freed after its last use: keep it in a field, or in `withExtendedLifetime`.
    @unsafe public var interpreter: Interpreter { unsafe Interpreter(program: UnsafePointer(code)) }

    public func map(named name: String) -> BPFMap? { maps.first { $0.name == name } }

    /// Memory of all maps, fixed from the start.
    public var memoryBytes: Int { maps.reduce(0) { $0 + $1.memoryBytes } }

    /// Where an instruction comes from, if the object says.
    public func source(of instruction: Int) -> SourceLine? { linked.source(instruction) }

    static func isFragsAware(section: String) -> Bool { section == "xdp.frags" || section.hasPrefix("xdp.frags/") }
}
