internal import CBPF

/// Reads what an object declares in `.maps` and in its data sections, in the order libbpf creates the maps.
struct MapDefinitionReader {
    /// A map, and where references to it point: a whole data section, or one variable of `.maps`.
    struct Placed {
        var definition: MapDefinition
        let section: Int
        let offset: UInt64
    }

    /// Of the settings' map, which comes from no section of the file.
    static let noSection = -1

    static func read(_ file: ELFFile, _ types: BTF?) throws(Malformed) -> [Placed] {
        try legacy(file) + declared(file, types) + dataSections(file)
    }

    private static func declared(_ file: ELFFile, _ types: BTF?) throws(Malformed) -> [Placed] {
        guard let index = file.sections.firstIndex(where: { $0.name == ".maps" }) else { return [] }
        guard let types, let section = try types.dataSection(named: ".maps") else {
            throw Malformed("has maps but no type information for them: compile with -g")
        }
        var placed: [Placed] = []
        for variable in section.members {
            let declaration = try types.type(variable.type)
            // The offset in BTF is only right after linking; the symbol's always is.
            guard declaration.kind == .variable, let symbol = file.symbols.first(where: {
                $0.section == index && $0.name == declaration.name && $0.type == ELFFile.Symbol.object
            }) else { throw Malformed(".maps: no symbol for map \(declaration.name)") }
            var definition = try self.definition(declaration.name, declaration.sizeOrType, types)
            definition.initial = try initial(definition, declaration.sizeOrType, symbol.value, section: index, file, types)
            placed.append(Placed(definition: definition, section: index, offset: symbol.value))
        }
        return placed.sorted { $0.offset < $1.offset }
    }

    /// The members' types carry the numbers: `__uint(name, n)` is a pointer to an array of n elements.
    private static func definition(_ name: String, _ type: UInt32, _ types: BTF, isInner: Bool = false) throws(Malformed) -> MapDefinition {
        let structure = try types.stripped(type)
        guard structure.kind == .structure else { throw Malformed("map \(name) is not declared as a structure") }
        var mapType: UInt32 = 0, keySize: UInt32 = 0, valueSize: UInt32 = 0, maxEntries: UInt32 = 0, flags: UInt32 = 0
        var keyType: UInt32 = 0, valueType: UInt32 = 0
        var inner: [MapDefinition] = []
        for member in structure.members {
            func target() throws(Malformed) -> UInt32 {
                let pointer = try types.stripped(member.type)
                guard pointer.kind == .pointer else { throw Malformed("map \(name): \(member.name) is not a pointer") }
                return pointer.sizeOrType
            }
            func number() throws(Malformed) -> UInt32 {
                let array = try types.stripped(try target())
                guard array.kind == .array else { throw Malformed("map \(name): \(member.name) is not a number") }
                return array.elementCount
            }
            switch member.name {
            case "type": mapType = try number()
            case "max_entries": maxEntries = try number()
            case "map_flags": flags = try number()
            case "key_size": keySize = try number()
            case "value_size": valueSize = try number()
            case "key":
                keyType = try target()
                keySize = try types.size(keyType)
            case "value":
                valueType = try target()
                valueSize = try types.size(valueType)
            case "values" where mapType == MapType.programs: valueSize = 4
            case "values" where mapType == MapType.mapArray || mapType == MapType.mapHash:
                // An array of pointers to the inner map's declaration.
                let pointer = try types.stripped(try types.stripped(member.type).elementType)
                guard pointer.kind == .pointer else { throw Malformed("map \(name): values are not pointers to a map's declaration") }
                valueSize = 4
                guard !isInner else { throw Malformed("map \(name): maps of maps of maps do not exist") }
                inner = [try self.definition(name + ".inner", pointer.sizeOrType, types, isInner: true)]
            // Pinning is the operator's business, the rest belongs to types that are refused where they are used.
            case "pinning", "numa_node", "map_extra", "values": break
            default: throw Malformed("map \(name) has an unknown attribute \(member.name)")
            }
        }
        var definition = MapDefinition(name: name, type: mapType, keySize: Int(keySize), valueSize: Int(valueSize),
                                       maxEntries: Int(maxEntries), flags: flags)
        adjust(&definition)
        definition.inner = inner
        (definition.keyType, definition.valueType) = (keyType, valueType)
        definition.keyLayout = ValueLayoutReader.layout(of: keyType, types)
        definition.valueLayout = ValueLayoutReader.layout(of: valueType, types)
        if valueType != 0 { definition.spinLockOffset = try spinLock(valueType, types) }
        return definition
    }

    /// What libbpf fills in or rounds up.
    private static func adjust(_ definition: inout MapDefinition) {
        if definition.type == MapType.events && definition.maxEntries == 0 { definition.maxEntries = Int(apus_possible_cpus()) }
        if definition.type == MapType.ringBuffer && definition.maxEntries > 0 {
            var size = 4096
            while size < definition.maxEntries { size *= 2 }
            definition.maxEntries = size
        }
    }

    private static func spinLock(_ type: UInt32, _ types: BTF) throws(Malformed) -> Int? {
        let structure = try types.stripped(type)
        guard structure.kind == .structure else { return nil }
        for member in structure.members where try types.stripped(member.type).name == "bpf_spin_lock" {
            return Int(member.offset / 8)
        }
        return nil
    }

    /// `.values = { [2] = &something }` leaves a relocation in `.maps` where the pointer would be.
    private static func initial(_ definition: MapDefinition, _ type: UInt32, _ offset: UInt64, section: Int, _ file: ELFFile,
                                _ types: BTF) throws(Malformed) -> [Int: String] {
        let structure = try types.stripped(type)
        guard let values = structure.members.first(where: { $0.name == "values" }) else { return [:] }
        let start = offset + UInt64(values.offset / 8)
        var initial: [Int: String] = [:]
        for relocation in try file.relocations(of: section) {
            // Declarations follow one another: the values end where the next map begins.
            let end = file.symbols.filter { $0.section == section && $0.value > offset && $0.type == ELFFile.Symbol.object }.map(\.value).min() ?? .max
            guard relocation.offset >= start, relocation.offset < end else { continue }
            let symbol = file.symbols[relocation.symbol]
            guard relocation.type == 1 || relocation.type == 2, symbol.type != ELFFile.Symbol.section else {
                throw Malformed("map \(definition.name): its values are not named by symbols")
            }
            let place = Int((relocation.offset - start) / 8)
            guard place < definition.maxEntries else { throw Malformed("map \(definition.name): initial value \(place) is beyond its \(definition.maxEntries) entries") }
            initial[place] = symbol.name
        }
        return initial
    }

    /// Before BTF: `struct bpf_map_def` of five 32-bit numbers, more in some dialects, in section `maps`.
    private static func legacy(_ file: ELFFile) throws(Malformed) -> [Placed] {
        var placed: [Placed] = []
        for (index, section) in file.sections.enumerated() where section.name == "maps" || section.name.hasPrefix("maps/") {
            let symbols = file.symbols.filter { $0.section == index && $0.type != ELFFile.Symbol.section && !$0.name.isEmpty }
            for symbol in symbols.sorted(by: { $0.value < $1.value }) {
                let record = try section.data.part(symbol.value, 20, "map \(symbol.name)")
                var definition = MapDefinition(
                    name: symbol.name, type: try record.u32(0), keySize: Int(try record.u32(4)), valueSize: Int(try record.u32(8)),
                    maxEntries: Int(try record.u32(12)), flags: try record.u32(16))
                adjust(&definition)
                placed.append(Placed(definition: definition, section: index, offset: symbol.value))
            }
        }
        return placed
    }

    private static func dataSections(_ file: ELFFile) throws(Malformed) -> [Placed] {
        var placed: [Placed] = []
        for (index, section) in file.sections.enumerated() where section.size > 0 {
            func isNamed(_ name: String) -> Bool { section.name == name || section.name.hasPrefix(name + ".") }
            let hasBytes = section.type == ELFFile.Section.progbits
            let isReadOnly = isNamed(".rodata")
            guard hasBytes && (isReadOnly || isNamed(".data")) || section.type == ELFFile.Section.nobits && isNamed(".bss")
            else { continue }
            guard section.size <= 1 << 26 else { throw Malformed("section \(section.name) of \(section.size) bytes is too large") }
            let size = Int(section.size)
            placed.append(Placed(definition: MapDefinition(
                name: section.name, type: MapDefinition.array, keySize: 4, valueSize: size, maxEntries: 1,
                flags: isReadOnly ? MapDefinition.readOnlyForPrograms : 0,
                contents: hasBytes ? section.data.bytes : [UInt8](repeating: 0, count: size)), section: index, offset: 0))
        }
        return placed
    }
}
