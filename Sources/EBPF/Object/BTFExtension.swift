/// `.BTF.ext`: which source line an instruction comes from, and where the compiler left CO-RE relocations.
struct BTFExtension {
    struct LineRecord {
        let instruction: Int    // within its section
        let source: SourceLine
    }

    struct CoreRecord {
        let type: UInt32
        /// Which member of which member: "0:1:2".
        let access: String
        let kind: UInt32        // enum bpf_core_relo_kind
    }

    private(set) var lines: [String: [LineRecord]] = [:]            // by section name, ascending
    private(set) var relocations: [String: [Int: [CoreRecord]]] = [:]  // by section name and instruction

    init() {}

    init(_ data: ByteView, _ types: BTF) throws(Malformed) {
        guard try data.u16(0) == 0xeb9f else { throw Malformed(".BTF.ext: wrong magic number") }
        let header = Int(try data.u32(4))
        let body = try data.part(header, data.count - min(header, data.count), ".BTF.ext: the part behind the header")
        let lineInfo = try body.part(UInt64(try data.u32(16)), UInt64(try data.u32(20)), ".BTF.ext: line information")
        try BTFExtension.eachRecord(lineInfo, size: 16, types) { (section, record) throws(Malformed) in
            let source = SourceLine(file: try types.string(try record.u32(4)), line: Int(try record.u32(12) >> 10))
            lines[section, default: []].append(LineRecord(instruction: Int(try record.u32(0) / 8), source: source))
        }
        for section in lines.keys { lines[section]?.sort { $0.instruction < $1.instruction } }
        guard header >= 32 else { return }
        let core = try body.part(UInt64(try data.u32(24)), UInt64(try data.u32(28)), ".BTF.ext: CO-RE relocations")
        try BTFExtension.eachRecord(core, size: 16, types) { (section, record) throws(Malformed) in
            let instruction = Int(try record.u32(0) / 8)
            relocations[section, default: [:]][instruction, default: []].append(
                CoreRecord(type: try record.u32(4), access: try types.string(try record.u32(8)), kind: try record.u32(12)))
        }
    }

    /// The line of an instruction: the last one that starts at or before it.
    func source(section: String, instruction: Int) -> SourceLine? {
        lines[section]?.last { $0.instruction <= instruction }?.source
    }

    /// Both tables have the same frame: record size, then per section its name, a count and the records.
    private static func eachRecord(_ data: ByteView, size: Int, _ types: BTF,
                                   _ body: (String, ByteView) throws(Malformed) -> Void) throws(Malformed) {
        guard data.count > 0 else { return }
        let recordSize = Int(try data.u32(0))
        guard recordSize >= size else { throw Malformed(".BTF.ext: records of \(recordSize) bytes") }
        var at = 4
        while at < data.count {
            let section = try types.string(try data.u32(at))
            let count = Int(try data.u32(at + 4))
            at += 8
            for _ in 0..<count {
                try body(section, try data.part(at, recordSize, ".BTF.ext: a record"))
                at += recordSize
            }
        }
    }
}
