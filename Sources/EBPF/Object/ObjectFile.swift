/// A BPF object: its programs and subprograms, maps, relocations and line information, as the file has them.
struct ObjectFile {
    /// A function: an entry program, or a subprogram of `.text`.
    struct Function {
        let name: String
        let section: Int
        /// Index of its first instruction within the section.
        let start: Int
        let instructions: [Instruction]
    }

    let name: String
    let sections: [ELFFile.Section]
    let symbols: [ELFFile.Symbol]
    let functions: [Function]
    private(set) var maps: [MapDefinitionReader.Placed]
    let debug: BTFExtension
    let types: BTF?
    let externals: Externals
    let kernel: TargetKernel
    private let relocations: [Int: [Int: ELFFile.Relocation]]   // section, instruction

    init(name: String, bytes: [UInt8], for kernel: TargetKernel = .running) throws(LoadError) {
        do {
            try self.init(name: name, parsing: bytes, kernel)
        } catch {
            throw LoadError(.malformed, object: name, error.message)
        }
    }

    /// No file: instructions come from elsewhere.
    init(named name: String) {
        self.name = name
        sections = []
        symbols = []
        functions = []
        maps = []
        debug = BTFExtension()
        types = nil
        externals = Externals()
        kernel = .running
        relocations = [:]
    }

    private init(name: String, parsing bytes: [UInt8], _ kernel: TargetKernel) throws(Malformed) {
        let file = try ELFFile(bytes)
        self.name = name
        sections = file.sections
        symbols = file.symbols
        let types: BTF?
        if let section = file.section(named: ".BTF") { types = try BTF(section.data) } else { types = nil }
        if let types, let section = file.section(named: ".BTF.ext") {
            debug = try BTFExtension(section.data, types)
        } else {
            debug = BTFExtension()
        }
        self.types = types
        self.kernel = kernel
        externals = try types.map { types throws(Malformed) in try Externals(file, types, kernel) } ?? Externals()
        maps = try MapDefinitionReader.read(file, types)
        if let settings = externals.map { maps.append(MapDefinitionReader.Placed(definition: settings, section: MapDefinitionReader.noSection, offset: 0)) }
        functions = try ObjectFile.readFunctions(file)
        var relocations: [Int: [Int: ELFFile.Relocation]] = [:]
        for (index, section) in file.sections.enumerated() where section.isExecutable {
            for relocation in try file.relocations(of: index) {
                guard relocation.offset % 8 == 0, relocation.offset < section.size else {
                    throw Malformed("section \(section.name): relocation at \(relocation.offset) hits no instruction")
                }
                relocations[index, default: [:]][Int(relocation.offset / 8)] = relocation
            }
        }
        self.relocations = relocations
    }

    /// Gives maps the size the operator wants: tools do so for maps declared without one.
    mutating func resize(_ entries: [String: Int]) throws(LoadError) {
        for (name, count) in entries {
            guard let index = maps.firstIndex(where: { $0.definition.name == name && !$0.definition.isDataSection }) else {
                throw LoadError(.unsupported, object: self.name, "has no map \(name)")
            }
            maps[index].definition.maxEntries = count
            maps[index].definition.sizedEntries = count
        }
    }

    /// Whether its maps are declared the way libbpf stopped to read with version 1.0.
    var hasLegacyMaps: Bool { sections.contains { $0.name == "maps" || $0.name.hasPrefix("maps/") } }

    /// XDP entry programs: functions of a section whose name starts with `xdp`, or with `?xdp` if only tools that ask for
    /// them by name are to load them.
    var programs: [Function] { functions.filter { sections[$0.section].name.hasPrefix("xdp") || sections[$0.section].name.hasPrefix("?xdp") } }

    func relocation(section: Int, instruction: Int) -> ELFFile.Relocation? { relocations[section]?[instruction] }

    func function(section: Int, start: Int) -> Function? {
        functions.first { $0.section == section && $0.start == start }
    }

    func source(_ function: Function, _ instruction: Int) -> SourceLine? {
        debug.source(section: sections[function.section].name, instruction: function.start + instruction)
    }

    /// The CO-RE relocations of the code around `function`, by instruction of its section.
    func coreRelocations(_ function: Function) -> [Int: [BTFExtension.CoreRecord]] {
        debug.relocations[sections[function.section].name] ?? [:]
    }

    private static func readFunctions(_ file: ELFFile) throws(Malformed) -> [Function] {
        var functions: [Function] = []
        for symbol in file.symbols where symbol.type == ELFFile.Symbol.function && symbol.section != 0 {
            guard symbol.section < file.sections.count, file.sections[symbol.section].isExecutable else {
                throw Malformed("function \(symbol.name) lies in no section of code")
            }
            let section = file.sections[symbol.section]
            guard symbol.value % 8 == 0, symbol.size % 8 == 0, symbol.size > 0 else {
                throw Malformed("function \(symbol.name): not whole instructions")
            }
            let code = try section.data.part(symbol.value, symbol.size, "function \(symbol.name)")
            var instructions: [Instruction] = []
            for at in stride(from: 0, to: code.count, by: 8) { instructions.append(try Instruction(code, at: at)) }
            functions.append(Function(name: symbol.name, section: symbol.section, start: Int(symbol.value / 8),
                                      instructions: instructions))
        }
        return functions.sorted { ($0.section, $0.start) < ($1.section, $1.start) }
    }
}
