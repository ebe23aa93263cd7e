/// The parts of a little-endian ELF64 relocatable object that BPF objects are made of.
struct ELFFile {
    struct Section {
        let name: String
        let type: UInt32
        let flags: UInt64
        let size: UInt64
        let link: UInt32
        let info: UInt32
        let data: ByteView      // empty where the section has no bytes in the file

        static let progbits: UInt32 = 1, symtab: UInt32 = 2, rela: UInt32 = 4, nobits: UInt32 = 8, rel: UInt32 = 9

        var isExecutable: Bool { type == Section.progbits && flags & 0x4 != 0 }
    }

    struct Symbol {
        let name: String
        let type: UInt8         // STT_
        let binding: UInt8      // STB_
        let section: Int        // 0: not defined here
        let value: UInt64
        let size: UInt64

        static let object: UInt8 = 1, function: UInt8 = 2, section: UInt8 = 3
        static let global: UInt8 = 1, weak: UInt8 = 2

        /// Declared here, defined by the kernel.
        var isExternal: Bool { section == 0 && type == 0 && (binding == Symbol.global || binding == Symbol.weak) && !name.isEmpty }
    }

    struct Relocation {
        let offset: UInt64
        let type: UInt32
        let symbol: Int
    }

    let sections: [Section]
    let symbols: [Symbol]

    init(_ bytes: [UInt8]) throws(Malformed) {
        let file = ByteView(bytes)
        guard file.count >= 4, try file.u32(0) == 0x464c_457f else { throw Malformed("not an ELF file") }
        guard file.count >= 64 else { throw Malformed("truncated: an ELF header has 64 bytes, the file \(file.count)") }
        guard try file.u8(4) == 2 else { throw Malformed("not a 64-bit ELF file") }
        guard try file.u8(5) == 1 else { throw Malformed("big-endian: compile with -target bpfel") }
        let machine = try file.u16(18)
        guard machine == 247 else { throw Malformed("made for machine \(machine), not for BPF (247): compile with -target bpf") }
        guard try file.u16(16) == 1 else { throw Malformed("not a relocatable object") }
        guard try file.u16(58) == 64 else { throw Malformed("section headers of \(try file.u16(58)) bytes, not 64") }
        sections = try ELFFile.readSections(file)
        symbols = try ELFFile.readSymbols(sections)
    }

    func section(named name: String) -> Section? { sections.first { $0.name == name } }

    /// The relocations of section `target`.
    func relocations(of target: Int) throws(Malformed) -> [Relocation] {
        var result: [Relocation] = []
        for section in sections where section.info == UInt32(target) {
            if section.type == Section.rela { throw Malformed("section \(section.name): relocations with addends") }
            guard section.type == Section.rel else { continue }
            guard section.data.count % 16 == 0 else { throw Malformed("section \(section.name): size is not a multiple of 16") }
            for at in stride(from: 0, to: section.data.count, by: 16) {
                let info = try section.data.u64(at + 8)
                let symbol = Int(info >> 32)
                guard symbol < symbols.count else { throw Malformed("section \(section.name): no symbol \(symbol)") }
                result.append(Relocation(offset: try section.data.u64(at), type: UInt32(truncatingIfNeeded: info), symbol: symbol))
            }
        }
        return result
    }

    private static func readSections(_ file: ByteView) throws(Malformed) -> [Section] {
        let table = try file.part(try file.u64(40), UInt64(try file.u16(60)) * 64, "the section header table")
        let count = table.count / 64
        guard count > 1 else { throw Malformed("has no sections") }
        func body(_ i: Int) throws(Malformed) -> ByteView {
            let at = i * 64
            let type = try table.u32(at + 4)
            if type == 0 || type == Section.nobits { return try file.part(0, 0, "") }
            return try file.part(try table.u64(at + 24), try table.u64(at + 32), "section \(i)")
        }
        let names = Int(try file.u16(62))
        guard names < count else { throw Malformed("has no section names") }
        let strings = try body(names)
        var sections: [Section] = []
        for i in 0..<count {
            let at = i * 64
            sections.append(Section(
                name: i == 0 ? "" : try strings.string(try table.u32(at)), type: try table.u32(at + 4),
                flags: try table.u64(at + 8), size: try table.u64(at + 32), link: try table.u32(at + 40),
                info: try table.u32(at + 44), data: try body(i)))
        }
        return sections
    }

    private static func readSymbols(_ sections: [Section]) throws(Malformed) -> [Symbol] {
        guard let table = sections.first(where: { $0.type == Section.symtab }) else { throw Malformed("has no symbol table") }
        guard table.link < sections.count else { throw Malformed("symbol table without names") }
        guard table.data.count % 24 == 0 else { throw Malformed("symbol table: size is not a multiple of 24") }
        let strings = sections[Int(table.link)].data
        var symbols: [Symbol] = []
        for at in stride(from: 0, to: table.data.count, by: 24) {
            let info = try table.data.u8(at + 4)
            symbols.append(Symbol(
                name: at == 0 ? "" : try strings.string(try table.data.u32(at)), type: info & 0xf, binding: info >> 4,
                section: Int(try table.data.u16(at + 6)), value: try table.data.u64(at + 8), size: try table.data.u64(at + 16)))
        }
        return symbols
    }
}
