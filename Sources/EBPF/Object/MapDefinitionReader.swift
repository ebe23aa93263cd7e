/// Reads what an object declares in `.maps` and in its data sections, in the order libbpf creates the maps.
struct MapDefinitionReader {
    /// A map, and where references to it point: a whole data section, or one variable of `.maps`.
    struct Placed {
        let definition: MapDefinition
        let section: Int
        let offset: UInt64
    }

    static func read(_ file: ELFFile, _ types: BTF?) throws(Malformed) -> [Placed] {
        if let legacy = file.sections.first(where: { $0.name == "maps" || $0.name.hasPrefix("maps/") }) {
            throw Malformed("section \(legacy.name) declares maps the way libbpf stopped to read with version 1.0; declare them in SEC(\".maps\")")
        }
        return try declared(file, types) + dataSections(file)
    }

    private static func declared(_ file: ELFFile, _ types: BTF?) throws(Malformed) -> [Placed] {
        guard let index = file.sections.firstIndex(where: { $0.name == ".maps" }) else { return [] }
        guard let types, let section = types.dataSection(named: ".maps") else {
            throw Malformed("has maps but no type information for them: compile with -g")
        }
        var placed: [Placed] = []
        for variable in section.members {
            let declaration = try types.type(variable.type)
            // The offset in BTF is only right after linking; the symbol's always is.
            guard declaration.kind == .variable, let symbol = file.symbols.first(where: {
                $0.section == index && $0.name == declaration.name && $0.type == ELFFile.Symbol.object
            }) else { throw Malformed(".maps: no symbol for map \(declaration.name)") }
            let definition = try self.definition(declaration.name, declaration.sizeOrType, types)
            placed.append(Placed(definition: definition, section: index, offset: symbol.value))
        }
        return placed.sorted { $0.offset < $1.offset }
    }

    /// The members' types carry the numbers: `__uint(name, n)` is a pointer to an array of n elements.
    private static func definition(_ name: String, _ type: UInt32, _ types: BTF) throws(Malformed) -> MapDefinition {
        let structure = try types.stripped(type)
        guard structure.kind == .structure else { throw Malformed("map \(name) is not declared as a structure") }
        var mapType: UInt32 = 0, keySize: UInt32 = 0, valueSize: UInt32 = 0, maxEntries: UInt32 = 0, flags: UInt32 = 0
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
            case "key": keySize = try types.size(try target())
            case "value": valueSize = try types.size(try target())
            // Pinning is the operator's business, the rest belongs to types that are refused where they are used.
            case "pinning", "numa_node", "map_extra", "values": break
            default: throw Malformed("map \(name) has an unknown attribute \(member.name)")
            }
        }
        return MapDefinition(name: name, type: mapType, keySize: Int(keySize), valueSize: Int(valueSize),
                             maxEntries: Int(maxEntries), flags: flags, contents: nil)
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
