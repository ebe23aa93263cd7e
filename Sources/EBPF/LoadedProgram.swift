internal import CBPF

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
    /// What it can do to packets, and where it looks at checksums; with the programs that its tail calls reach as of now.
    public var analysis: Analysis { body.analysis }
    /// False only if no store, atomic or adjusting helper it contains can reach a packet.
    public var canWrite: Bool { !analysis.isReadOnly }
    /// Some instruction asks for a finished checksum.
    public var watchesChecksum: Bool { analysis.asks }
    /// A zero in UDP's checksum field may be the program's word.
    public var mayClearChecksum: Bool { analysis.mayClearField }
    /// No kernel verified it: every access is checked while it runs.
    public let isSandboxed: Bool
    /// It has no packet but bare memory, which r1 and r2 say.
    let isRaw: Bool
    /// Places of the maps it refers to, in the object.
    let referred: Set<Int>
    let body: ProgramBody
    let set: ProgramSet
    let linked: LinkedProgram

    init(_ linked: LinkedProgram, _ body: ProgramBody, _ set: ProgramSet, maps: Set<Int>, isRaw: Bool = false) {
        name = linked.program.name
        section = linked.section
        isFragsAware = LoadedProgram.isFragsAware(section: section)
        instructions = linked.instructions.count
        self.maps = maps.sorted().compactMap { set.maps[$0] }
        isSandboxed = set.isSandboxed
        self.isRaw = isRaw
        referred = maps
        self.linked = linked
        self.body = body
        self.set = set
    }

    /// Valid as long as this program lives: that is what the caller vouches for.
    @unsafe public var interpreter: Interpreter { unsafe Interpreter(image: UnsafePointer(body.image)) }

    /// One of ``maps``, or of a program that this one goes on in.
    public func map(named name: String) -> BPFMap? { allMaps.first { $0.name == name } }

    /// Of this program and of those its program arrays start with.
    var allMaps: [BPFMap] { self.set.maps.sorted { $0.key < $1.key }.map(\.value) }

    /// The map whose address a `RedirectTarget` has.
    public func map(at address: UInt64) -> BPFMap? {
        set.maps.values.first { UInt64(UInt(bitPattern: unsafe $0.storage)) == address }
    }

    /// Memory of all maps, fixed from the start.
    public var memoryBytes: Int { maps.reduce(0) { $0 + $1.memoryBytes } }

    /// What the operator is to be told though nothing is wrong: a line each.
    public var notes: [String] {
        linked.stubs.sorted().map { "\(name): the running kernel has no function \($0): its verifier was shown a stub of the same effect" }
    }

    /// Where an instruction comes from, if the object says.
    public func source(of instruction: Int) -> SourceLine? { linked.source(instruction) }

    /// What changes when program arrays hold `programs`: by the name of the array, by slot; an array that is missing
    /// holds nothing anybody knows. Asked before a slot changes, so that the answer is in force when it does.
    public func analysis(tailCalls programs: [String: [UInt32: LoadedProgram]]) -> Analysis {
        Analysis.of(linked, isVerified: set.isVerified) { program, map in
            guard program.maps.indices.contains(map), let slots = programs[program.maps[map].name] else { return .unknown }
            return .known(slots.mapValues(\.linked))
        }
    }

    static func isFragsAware(section: String) -> Bool {
        let section = section.drop { $0 == "?" }
        return section == "xdp.frags" || section.hasPrefix("xdp.frags/")
    }

    /// By the name of its section, as libbpf has it.
    static func place(section: String) -> apus_place {
        switch section.drop(while: { $0 == "?" }) {
        case "xdp/devmap", "xdp.frags/devmap", "xdp_devmap": APUS_PLACE_DEVICE_MAP
        case "xdp/cpumap", "xdp.frags/cpumap", "xdp_cpumap": APUS_PLACE_CPU_MAP
        default: APUS_PLACE_DEVICE
        }
    }

    /// Tests: where its code lies, every instruction of which is marked to be traced.
    func tracedCode() -> UnsafeRawPointer {
        body.traceAll(instructions)
        return unsafe body.codeAddress
    }

    /// Instructions the interpreter executes, second halves of 64-bit loads left out.
    var executable: [Bool] {
        var isSecondHalf = false
        return linked.instructions.map { instruction in
            defer { isSecondHalf = !isSecondHalf && instruction.isLoadImmediate64 }
            return !isSecondHalf
        }
    }

    /// Puts this program into a program array. It and the array may belong to different objects.
    ///
    /// What the programs that use the array may do is found anew: no lcore runs them meanwhile, and stages and compiled code
    /// are made afterwards.
    public func enter(_ array: BPFMap, at index: UInt32) throws(MapError) {
        guard array.definition.type == MapType.programs else { throw .invalid }
        let isOfSameObject = set.maps.values.contains { $0 === array }
        if !isOfSameObject { array.held.keep(self) }
        let users = array.held.users
        for user in users { user.willEnter(linked, array, at: index) }
        defer { for user in users { user.didEnter() } }
        let key = (0..<4).map { UInt8(truncatingIfNeeded: index >> (8 * $0)) }
        try array.setObject(key, UInt64(UInt(bitPattern: unsafe body.image)), .any)
    }
}
