/// Makes BTF of declarations in C's own words: structures, unions and enumerations of fixed-size integers, laid out as
/// 64-bit ABIs do.
struct TypeTable {
    private struct Layout {
        let id: UInt32
        let size: UInt32
        let alignment: UInt32
    }

    private var records: [UInt8] = []
    private var strings: [UInt8] = [0]
    private var count: UInt32 = 0
    private var known: [String: Layout] = [:]
    private var words: [Substring] = []
    private var at = 0

    /// The whole of it: header, types, strings.
    var bytes: [UInt8] {
        var header: [UInt8] = [0x9f, 0xeb, 1, 0]
        for number in [24, 0, UInt32(records.count), UInt32(records.count), UInt32(strings.count)] { header += TypeTable.little(number) }
        return header + records + strings
    }

    mutating func declare(_ text: String) throws(Malformed) {
        var spaced = text
        for mark in "{};:[]=," { spaced = spaced.split(separator: mark, omittingEmptySubsequences: false).joined(separator: " \(mark) ") }
        words = spaced.split(whereSeparator: \.isWhitespace)
        at = 0
        while at < words.count {
            _ = try type()
            try expect(";")
        }
    }

    // MARK: Reading

    private mutating func next() throws(Malformed) -> Substring {
        guard at < words.count else { throw Malformed("the declaration ends too early") }
        at += 1
        return words[at - 1]
    }

    private mutating func expect(_ word: String) throws(Malformed) {
        let found = try next()
        guard found == word else { throw Malformed("'\(found)' where '\(word)' belongs") }
    }

    private mutating func accept(_ word: String) -> Bool {
        guard at < words.count, words[at] == word else { return false }
        at += 1
        return true
    }

    private mutating func number() throws(Malformed) -> UInt32 {
        let word = try next()
        guard let number = UInt32(word) else { throw Malformed("'\(word)' is no number") }
        return number
    }

    private mutating func type() throws(Malformed) -> Layout {
        let word = try next()
        guard word == "struct" || word == "union" || word == "enum" else { return try integer(word) }
        let name = at < words.count && words[at] != "{" ? String(try next()) : ""
        guard accept("{") else {
            guard let layout = known["\(word) \(name)"] else { throw Malformed("\(word) \(name) is not declared") }
            return layout
        }
        let layout = word == "enum" ? try enumeration(name) : try composite(name, isUnion: word == "union")
        if !name.isEmpty { known["\(word) \(name)"] = layout }
        return layout
    }

    private mutating func integer(_ word: Substring) throws(Malformed) -> Layout {
        if let layout = known[String(word)] { return layout }
        let names: [Substring: (name: String, size: UInt32)] = [
            "u8": ("unsigned char", 1), "u16": ("unsigned short", 2), "u32": ("unsigned int", 4), "u64": ("unsigned long long", 8),
            "s8": ("signed char", 1), "s16": ("short", 2), "s32": ("int", 4), "s64": ("long long", 8),
        ]
        guard let (name, size) = names[word] else { throw Malformed("'\(word)' is no type") }
        let encoding: UInt32 = word.hasPrefix("s") ? 1 << 24 : 0
        let layout = Layout(id: append(1, name, 0, size, [encoding | size * 8]), size: size, alignment: size)
        known[String(word)] = layout
        return layout
    }

    private mutating func enumeration(_ name: String) throws(Malformed) -> Layout {
        var words: [UInt32] = []
        repeat {
            words.append(string(String(try next())))
            try expect("=")
            words.append(try number())
        } while accept(",")
        try expect("}")
        return Layout(id: append(6, name, UInt32(words.count / 2), 4, words), size: 4, alignment: 4)
    }

    private mutating func composite(_ name: String, isUnion: Bool) throws(Malformed) -> Layout {
        var members: [UInt32] = [], bits: UInt32 = 0, largest: UInt32 = 0, alignment: UInt32 = 1
        while !accept("}") {
            var type = try self.type()
            let member = at < words.count && words[at] != ";" && words[at] != ":" ? String(try next()) : ""
            if accept("[") {
                let index = try integer("u32").id, elements = try number()
                type = Layout(id: append(3, "", 0, 0, [type.id, index, elements]), size: type.size * elements, alignment: type.alignment)
                try expect("]")
            }
            let width = accept(":") ? try number() : 0
            try expect(";")
            // A bitfield begins a new unit where the current one has no room for it.
            let unit = width > 0 ? type.size * 8 : type.alignment * 8
            if !isUnion && (width == 0 || bits % unit + width > unit) { bits = (bits + unit - 1) / unit * unit }
            // Without a name it is padding, unless it has members of its own.
            if width == 0 || !member.isEmpty { members += [string(member), type.id, width << 24 | (isUnion ? 0 : bits)] }
            bits += width > 0 ? width : type.size * 8
            largest = max(largest, type.size)
            alignment = max(alignment, type.alignment)
        }
        let used = isUnion ? largest : (bits + 7) / 8
        let size = (used + alignment - 1) / alignment * alignment
        return Layout(id: append(isUnion ? 5 : 4, name, 1 << 31 | UInt32(members.count / 3), size, members), size: size, alignment: alignment)
    }

    // MARK: Writing

    private mutating func append(_ kind: UInt32, _ name: String, _ info: UInt32, _ size: UInt32, _ rest: [UInt32]) -> UInt32 {
        for word in [string(name), kind << 24 | info, size] + rest { records += TypeTable.little(word) }
        count += 1
        return count
    }

    private mutating func string(_ text: String) -> UInt32 {
        if text.isEmpty { return 0 }
        strings += Array(text.utf8) + [0]
        return UInt32(strings.count - text.utf8.count - 1)
    }

    private static func little(_ word: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
}
