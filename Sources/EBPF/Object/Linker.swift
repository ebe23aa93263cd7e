/// A program with its subprograms, relocated: what is verified, decoded and run. Loads of map addresses still say
/// which map they mean by its place in `maps`.
struct LinkedProgram {
    let object: ObjectFile
    let program: ObjectFile.Function
    var instructions: [Instruction]
    /// Where each instruction comes from: for messages.
    fileprivate(set) var origins: [(function: ObjectFile.Function, instruction: Int)]
    let maps: [MapDefinition]
    /// Calls of kernel functions, and loads of their addresses: which.
    var kernelFunctions: [Int: String] = [:]
    /// Instructions that the kernel must not reach, because it has not what they ask for: what that is.
    var absent: [Int: String] = [:]
    /// Kernel functions that the engine has and the kernel has not: only its verifier needs something in their place.
    var stubs: Set<String> = []

    fileprivate init(_ program: ObjectFile.Function, of object: ObjectFile) {
        self.object = object
        self.program = program
        instructions = []
        origins = []
        maps = object.maps.map(\.definition)
    }

    /// Bare instructions, in which maps are already named by their place in `maps`.
    init(name: String, instructions: [Instruction], maps: [MapDefinition]) {
        object = ObjectFile(named: name)
        program = ObjectFile.Function(name: name, section: 0, start: 0, instructions: instructions)
        self.instructions = instructions
        origins = []
        self.maps = maps
    }

    /// From another process, without the object: only its name.
    init(object: String, name: String, section: String, instructions: [Instruction], maps: [MapDefinition], sources: [SourceLine?],
         kernelFunctions: [Int: String], absent: [Int: String], stubs: Set<String>) {
        self.object = ObjectFile(named: object)
        program = ObjectFile.Function(name: name, section: 0, start: 0, instructions: instructions)
        self.instructions = instructions
        origins = []
        self.maps = maps
        knownSection = section
        self.sources = sources
        self.kernelFunctions = kernelFunctions
        self.absent = absent
        self.stubs = stubs
    }

    private var knownSection: String?
    private var sources: [SourceLine?] = []

    /// Name of the program's section; empty for bare instructions.
    var section: String {
        knownSection ?? (object.sections.indices.contains(program.section) ? object.sections[program.section].name : "")
    }

    func source(_ index: Int) -> SourceLine? {
        if sources.indices.contains(index) { return sources[index] }
        guard origins.indices.contains(index) else { return nil }
        return object.source(origins[index].function, origins[index].instruction)
    }

    func error(_ kind: LoadError.Kind, at index: Int?, _ message: String) -> LoadError {
        LoadError(kind, object: object.name, program: program.name, instruction: index, source: index.flatMap(source), message)
    }
}

/// Lays a program and the subprograms it reaches out in one array and resolves what refers to maps, data and
/// subprograms: in the order of libbpf, which puts a subprogram behind everything so far when its first call is met.
struct Linker {
    let object: ObjectFile
    var linked: LinkedProgram
    private let isToRun: Bool
    private var core: CoreResolver?
    private var placed: [Int: Int] = [:]    // start of a function in linked, by index in object.functions

    /// The kernel stops at a million; an object that would need more is no program.
    private static let instructionsMax = 1_000_000

    /// - Parameter toRun: false: maps the engine cannot create are no obstacle, because nothing will run.
    static func link(_ program: ObjectFile.Function, of object: ObjectFile, toRun: Bool = true) throws(LoadError) -> LinkedProgram {
        var linker = Linker(object: object, linked: LinkedProgram(program, of: object), isToRun: toRun)
        _ = try linker.append(program)
        return linker.linked
    }

    private init(object: ObjectFile, linked: LinkedProgram, isToRun: Bool) {
        self.object = object
        self.linked = linked
        self.isToRun = isToRun
    }

    /// Where `function` starts in the linked program. Recursion ends because a function is placed before its calls
    /// are followed; whether it may call itself is for the verifier to say.
    private mutating func append(_ function: ObjectFile.Function, depth: Int = 0) throws(LoadError) -> Int {
        guard let key = object.functions.firstIndex(where: { $0.section == function.section && $0.start == function.start })
        else { return 0 }
        if let start = placed[key] { return start }
        let start = linked.instructions.count
        guard start + function.instructions.count <= Linker.instructionsMax, depth < 512 else {
            throw linked.error(.unsupported, at: nil, "is too large")
        }
        placed[key] = start
        linked.instructions += function.instructions
        linked.origins += function.instructions.indices.map { (function, $0) }
        try relocateByTypes(function, start)
        var index = 0
        while index < function.instructions.count {
            let at = start + index
            let instruction = linked.instructions[at]
            if instruction.isLoadImmediate64 {
                guard index + 1 < function.instructions.count else { throw linked.error(.malformed, at: at, "64-bit load is cut off") }
                try relocateLoad(function, index, at, depth)
                index += 2
            } else {
                if instruction.isCall { try relocateCall(function, index, at, depth) }
                index += 1
            }
        }
        return start
    }

    /// CO-RE: before anything else, as libbpf does.
    private mutating func relocateByTypes(_ function: ObjectFile.Function, _ start: Int) throws(LoadError) {
        let relocations = object.coreRelocations(function)
        guard !relocations.isEmpty, let types = object.types else { return }
        for index in function.instructions.indices {
            for record in relocations[function.start + index] ?? [] {
                do throws(Malformed) {
                    if core == nil { core = CoreResolver(local: types, target: try object.kernel.types()) }
                    guard let resolver = core else { return }
                    let answer = try resolver.answer(record)
                    try CoreResolver.patch(&linked.instructions, at: start + index, answer)
                    if linked.instructions[start + index].immediate == CoreResolver.poison { linked.absent[start + index] = resolver.description(record) }
                } catch {
                    throw linked.error(.malformed, at: start + index, error.message)
                }
            }
        }
    }

    private mutating func relocateCall(_ function: ObjectFile.Function, _ index: Int, _ at: Int, _ depth: Int) throws(LoadError) {
        let instruction = linked.instructions[at]
        let relocation = object.relocation(section: function.section, instruction: function.start + index)
        var section = function.section
        var target = function.start + index + 1 + Int(instruction.immediate)
        if let relocation {
            let symbol = object.symbols[relocation.symbol]
            if symbol.section == 0 { return try callKernel(symbol.name, at) }
            guard instruction.isLocalCall, relocation.type == 10, symbol.value / 8 <= UInt64(Int32.max) else {
                throw linked.error(.malformed, at: at, "relocation of type \(relocation.type) does not fit a call")
            }
            section = symbol.section
            target = Int(symbol.value / 8) + 1 + Int(instruction.immediate)
        } else if instruction.isKernelFunctionCall {
            throw linked.error(.malformed, at: at, "calls a kernel function without a name")
        } else if !instruction.isLocalCall {
            return  // a helper: the decoder knows which ones there are
        }
        guard let callee = object.function(section: section, start: target) else {
            throw linked.error(.malformed, at: at, "calls into the middle of nowhere")
        }
        let start = try append(callee, depth: depth + 1)
        linked.instructions[at].immediate = Int32(start - at - 1)
    }

    private mutating func relocateLoad(_ function: ObjectFile.Function, _ index: Int, _ at: Int, _ depth: Int) throws(LoadError) {
        guard let relocation = object.relocation(section: function.section, instruction: function.start + index) else {
            guard function.instructions[index].source == 0 else {
                throw linked.error(.malformed, at: at, "refers to a map or function by a number that means nothing in a file")
            }
            return
        }
        let symbol = object.symbols[relocation.symbol]
        guard relocation.type == 1 else {
            throw linked.error(.unsupported, at: at, "relocation of type \(relocation.type) against \(symbol.name) is not supported")
        }
        if symbol.section == 0 { return try loadExternal(symbol.name, at) }
        if symbol.section < object.sections.count, object.sections[symbol.section].isExecutable {
            let offset = Int64(clamping: symbol.value) + Int64(function.instructions[index].immediate)
            guard offset >= 0, offset % 8 == 0, let callee = object.function(section: symbol.section, start: Int(offset / 8)) else {
                throw linked.error(.malformed, at: at, "refers to the middle of a function")
            }
            let start = try append(callee, depth: depth + 1)
            linked.instructions[at].source = PseudoSource.function
            linked.instructions[at].immediate = Int32(start - at - 1)
            linked.instructions[at + 1].immediate = 0
            return
        }
        let sectionName = symbol.section < object.sections.count ? object.sections[symbol.section].name : ""
        let isDeclared = sectionName == ".maps" || sectionName == "maps" || sectionName.hasPrefix("maps/")
        guard let map = object.maps.firstIndex(where: {
            $0.section == symbol.section && ($0.definition.isDataSection || $0.offset == symbol.value)
        }), object.maps[map].definition.isDataSection != isDeclared else {
            throw linked.error(.unsupported, at: at, "refers to \(symbol.name), which is neither map nor data")
        }
        if isToRun, let obstacle = object.maps[map].definition.obstacle {
            throw linked.error(.unsupported, at: at, "map \(object.maps[map].definition.name): \(obstacle)")
        }
        if !isDeclared {
            let offset = Int64(function.instructions[index].immediate) + Int64(clamping: symbol.value)
            guard offset >= 0, offset < object.maps[map].definition.valueSize else {
                throw linked.error(.malformed, at: at, "refers to byte \(offset) of \(object.maps[map].definition.name), which is shorter")
            }
            linked.instructions[at + 1].immediate = Int32(offset)
        }
        linked.instructions[at].source = isDeclared ? PseudoSource.mapFD : PseudoSource.mapValue
        linked.instructions[at].immediate = Int32(map)
    }
}
