internal import CBPF
internal import Synchronization

/// One program's code, at an address that program arrays hold.
@safe final class ProgramBody {
    let image: UnsafeMutablePointer<ProgramImage>
    private let code: UnsafeMutablePointer<DecodedInstruction>
    private let compiled: UnsafeMutablePointer<UInt64>
    /// The same as `code`, for the compiler.
    let instructions: [DecodedInstruction]

    private let found: Mutex<Analysis>
    /// As of now: a program array that changes changes it.
    var analysis: Analysis { found.withLock { $0 } }

    init(_ slots: [DecodedInstruction], _ analysis: Analysis) {
        found = Mutex(analysis)
        unsafe code = .allocate(capacity: slots.count)
        unsafe code.initialize(from: slots, count: slots.count)
        unsafe image = .allocate(capacity: 1)
        unsafe compiled = .allocate(capacity: 2)
        unsafe compiled.initialize(repeating: 0, count: 2)
        instructions = slots
    }

    deinit {
        unsafe image.deallocate()
        unsafe compiled.deallocate()
        unsafe code.deallocate()
    }

    /// Not while an lcore runs it.
    func adopt(_ analysis: Analysis, keepsMarks: Bool) {
        for (at, marks) in analysis.marks.enumerated() {
            unsafe code[at].marks = keepsMarks ? code[at].marks | marks.rawValue : marks.rawValue
        }
        found.withLock { $0 = analysis }
        // Compiled code has the old marks in it: interpreted until somebody compiles it again.
        unsafe apus_release64(compiled, 0)
        unsafe apus_release64(compiled + 1, 0)
    }

    /// Tests: marks every instruction, so that a trace sees it run. Verification and analysis are over.
    func traceAll(_ count: Int) {
        for slot in 0..<count { unsafe code[slot].marks |= Marks.traced.rawValue }
    }

    var codeAddress: UnsafeRawPointer { unsafe UnsafeRawPointer(code) }

    func finish(_ count: Int, maps: UnsafePointer<UnsafeMutablePointer<MapStorage>>, mapCount: Int, isSandboxed: Bool) {
        unsafe image.initialize(to: ProgramImage(code: UnsafePointer(code), codeCount: count, maps: maps, mapCount: mapCount, isSandboxed: isSandboxed,
                                                  compiled: compiled))
    }
}

/// Programs of one object and the maps they share. It owns both, so that a program array may hold a program that
/// refers to that array without either keeping the other alive.
@safe final class ProgramSet: @unchecked Sendable {       // nothing changes once the programs are loaded
    let object: ObjectFile
    let isSandboxed: Bool
    /// What the analysis may believe of accesses.
    let isVerified: Bool
    private let isRaw: Bool
    private(set) var maps: [Int: BPFMap] = [:]      // by place in the object
    private var bodies: [String: ProgramBody] = [:]
    /// What `LoadedProgram`s of the other programs are made of.
    private var others: [(linked: LinkedProgram, maps: Set<Int>)] = []
    /// What program arrays hold, by place in the object and by slot: what the analysis goes by. Only what `fill` and
    /// `LoadedProgram.enter` put there stands there: programs cannot write to such a map.
    private var slots: [Int: [UInt32: LinkedProgram]] = [:]
    private let slotsLock = Mutex(())
    private var programs: [LinkedProgram] = []
    private var tables: UnsafeMutablePointer<UnsafeMutablePointer<MapStorage>>?
    /// Inner maps made for static contents and foreign programs live in the `held` of the map that points to them.

    /// - Parameter isVerified: unverified otherwise than by the sandbox: tests alone, of programs they know to be good.
    init(_ object: ObjectFile, isSandboxed: Bool, isVerified: Bool? = nil, isRaw: Bool = false) {
        self.object = object
        self.isRaw = isRaw
        self.isSandboxed = isSandboxed
        self.isVerified = isVerified ?? !isSandboxed
    }

    deinit { unsafe tables?.deallocate() }

    /// Makes the maps and the programs, and fills maps that point to either. The first program is the one asked for.
    func load(_ programs: [LinkedProgram]) throws(LoadError) -> LoadedProgram {
        var loaded: LoadedProgram?
        self.programs = programs
        slotsLock.withLock { _ in slots = ProgramSet.initial(programs) }
        for linked in programs {
            let program = try prepare(linked)
            if loaded == nil { loaded = program } else { others.append((linked, program.referred)) }
        }
        // Inner maps that only static contents name.
        for outer in maps.values where MapKind(outer.definition.type) == .mapArray || MapKind(outer.definition.type) == .mapHash {
            for name in outer.definition.initial.values {
                if let inner = programs[0].maps.firstIndex(where: { $0.name == name }) { _ = try map(inner, programs[0], at: nil) }
            }
        }
        let storages = unsafe maps.values.map { unsafe $0.storage }
        let tables = unsafe UnsafeMutablePointer<UnsafeMutablePointer<MapStorage>>.allocate(capacity: max(storages.count, 1))
        unsafe tables.initialize(from: storages, count: storages.count)
        unsafe self.tables = unsafe tables
        for linked in programs {
            unsafe bodies[linked.program.name]?.finish(linked.instructions.count + 1, maps: UnsafePointer(tables), mapCount: storages.count,
                                                       isSandboxed: isSandboxed)
        }
        try fill(programs[0])
        guard let loaded else { preconditionFailure("a program set is loaded for a program") }
        return loaded
    }

    private func prepare(_ linked: LinkedProgram) throws(LoadError) -> LoadedProgram {
        var (slots, references) = try Decoder.decode(linked)
        for reference in references {
            let map = try map(reference.map, linked, at: reference.slot)
            slots[reference.slot].immediate = unsafe reference.valueOffset.map { unsafe map.storage.pointee.table + UInt64($0) }
                ?? UInt64(UInt(bitPattern: map.storage))
        }
        // What the analysis knows starts from a context in r1.
        let analysis = isRaw ? Analysis.worst(linked, "bare instructions") : analysis(of: linked)
        for (at, marks) in analysis.marks.enumerated() { slots[at].marks = marks.rawValue }
        let body = ProgramBody(slots, analysis)
        bodies[linked.program.name] = body
        return LoadedProgram(linked, body, self, maps: Set(references.map(\.map)), isRaw: isRaw)
    }

    /// With the programs that its tail calls reach as of now. Those of other objects may go on anywhere.
    func analysis(of linked: LinkedProgram) -> Analysis {
        let slots = slotsLock.withLock { _ in self.slots }
        return Analysis.of(linked, isVerified: isVerified) { program, map in
            program.object.name == self.object.name && program.maps.indices.contains(map) ? .known(slots[map] ?? [:]) : .unknown
        }
    }

    /// Static contents, as far as they name programs that are there.
    static func initial(_ programs: [LinkedProgram]) -> [Int: [UInt32: LinkedProgram]] {
        var result: [Int: [UInt32: LinkedProgram]] = [:]
        for (index, map) in (programs.first?.maps ?? []).enumerated() where map.type == MapType.programs {
            for (slot, name) in map.initial {
                if let program = programs.first(where: { $0.program.name == name }) { result[index, default: [:]][UInt32(slot)] = program }
            }
        }
        return result
    }

    /// A slot of one of this set's program arrays is about to hold `program`: marks for what it holds now and for what it
    /// will hold. `didEnter` when it does.
    func willEnter(_ program: LinkedProgram, _ array: BPFMap, at index: UInt32) {
        guard let place = maps.first(where: { $0.value === array })?.key else { return }
        slotsLock.withLock { _ in slots[place, default: [:]][index] = program }
        adopt(keepsMarks: true)
    }

    func didEnter() { adopt(keepsMarks: false) }

    private func adopt(keepsMarks: Bool) {
        for linked in programs { bodies[linked.program.name]?.adopt(analysis(of: linked), keepsMarks: keepsMarks) }
    }

    /// By the programs' own words: an object that another process opened is a name here, and no more.
    var hasProgramArray: Bool { programs.contains { $0.maps.contains { $0.type == MapType.programs } } }

    /// Programs beside the one asked for, which tail calls may lead to.
    func companions() -> [LoadedProgram] {
        others.compactMap { other in bodies[other.linked.program.name].map { LoadedProgram(other.linked, $0, self, maps: other.maps) } }
    }

    private func map(_ index: Int, _ linked: LinkedProgram, at slot: Int?) throws(LoadError) -> BPFMap {
        if let map = maps[index] { return map }
        guard linked.maps.indices.contains(index) else {
            throw linked.error(.malformed, at: slot, "refers to map \(index), which is not there")
        }
        if let obstacle = linked.maps[index].obstacle {
            throw linked.error(.unsupported, at: slot, "map \(linked.maps[index].name): \(obstacle)")
        }
        guard let map = BPFMap(linked.maps[index]) else {
            throw linked.error(.unsupported, at: slot, "not enough memory for map \(linked.maps[index].name)")
        }
        map.held.isUsed(by: self)
        maps[index] = map
        return map
    }

    /// Static contents of program arrays and maps of maps.
    private func fill(_ linked: LinkedProgram) throws(LoadError) {
        for (index, outer) in maps.sorted(by: { $0.key < $1.key }) {
            for (place, name) in outer.definition.initial {
                let key = (0..<4).map { UInt8(truncatingIfNeeded: place >> (8 * $0)) }
                do throws(MapError) {
                    if outer.definition.type == MapType.programs {
                        guard let body = bodies[name] else { throw MapError.invalid }
                        try outer.setObject(key, UInt64(UInt(bitPattern: unsafe body.image)), .any)
                    } else {
                        guard let inner = linked.maps.firstIndex(where: { $0.name == name }),
                              let map = try? map(inner, linked, at: nil) else { throw MapError.invalid }
                        try outer.setMap(key, map)
                    }
                } catch {
                    throw linked.error(.malformed, at: nil, "map \(outer.name): initial value \(place), \(name), does not fit (map \(index))")
                }
            }
        }
    }
}
