/// The text of a configuration file as sections of keys, each with its line. Syntax only: which words mean something is for
/// `ConfigurationReader` to say.
///
/// Lines end in LF or CRLF. `[kind]` or `[kind name]` opens a section, `key = value` belongs to the one above it. `;` and `#` start a
/// comment at the start of a line or after a blank, so `a;b` is a value and `a ;b` a value with a comment. There is no quoting and
/// no continuation. Total over all bytes: what is not understood becomes a diagnostic, and the rest is still read.
struct INI: Sendable, Equatable {
    struct Entry: Sendable, Equatable {
        let key: String
        let value: String
        let line: Int
    }

    struct Section: Sendable, Equatable {
        let kind: String
        let name: String?
        let line: Int
        fileprivate(set) var entries: [Entry] = []
        /// False if a line of it could not be read: it may be the key that seems to be missing.
        fileprivate(set) var isComplete = true

        var title: String { name.map { "\(kind) \($0)" } ?? kind }
    }

    static let fileBytesMax = 1 << 20
    static let lineBytesMax = 4096

    private(set) var sections: [Section] = []
    private(set) var diagnostics: [Diagnostic] = []
    /// False if a section could not be read, so that what it would have declared is not reported as missing.
    private(set) var isComplete = true

    private let source: String
    /// Where entries go: a section of `sections`, or nowhere below a header that was refused.
    private var current: Int?
    private var title: String?
    private var isBelowHeader = false

    init(parsing bytes: [UInt8], source: String) {
        self.source = source
        guard bytes.count <= Self.fileBytesMax else {
            isComplete = false
            report(0, nil, "is longer than \(Self.fileBytesMax) bytes", "give a configuration file")
            return
        }
        // Editors on other systems put a byte order mark in front.
        let text = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? bytes[3...] : bytes[...]
        var number = 0
        for line in text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            number += 1
            parse(line.last == UInt8(ascii: "\r") ? line.dropLast() : line, number)
        }
    }

    private mutating func parse(_ raw: ArraySlice<UInt8>, _ number: Int) {
        let isHeader = Self.trim(raw).first == UInt8(ascii: "[")
        guard let fault = Self.fault(of: raw) else {
            let line = Self.trim(Self.withoutComment(raw))
            if line.isEmpty { return }
            return isHeader ? parseHeader(line, number) : parseEntry(line, number)
        }
        if isHeader { refuseHeader() } else if let current { sections[current].isComplete = false }
        report(number, title, fault.message, fault.remedy)
    }

    private static func fault(of raw: ArraySlice<UInt8>) -> (message: String, remedy: String)? {
        if raw.count > lineBytesMax { return ("the line is longer than \(lineBytesMax) bytes", "shorten it") }
        if let control = raw.first(where: { ($0 < 0x20 && $0 != UInt8(ascii: "\t")) || $0 == 0x7F }) {
            return ("the line contains the control byte \(control)", "remove it")
        }
        if String(validating: raw, as: UTF8.self) == nil { return ("the line is not UTF-8", "save the file as UTF-8") }
        return nil
    }

    // `line` starts with "[" and is trimmed, free of comments and valid UTF-8.
    private mutating func parseHeader(_ line: ArraySlice<UInt8>, _ number: Int) {
        func refuse(_ message: String, _ remedy: String) {
            refuseHeader()
            report(number, nil, message, remedy)
        }
        guard let close = line.firstIndex(of: UInt8(ascii: "]")) else {
            return refuse("\(Self.text(line).quoted) has no ']'", "write [kind name]")
        }
        guard close == line.endIndex - 1 else {
            return refuse("\(Self.text(line[(close + 1)...]).quoted) stands behind ']'", "put it on a line of its own")
        }
        let words = line[line.startIndex..<close].dropFirst().split(whereSeparator: Self.isBlank).map(Self.text)
        guard let kind = words.first, words.count <= 2 else {
            return refuse("\(Self.text(line).quoted) is not one or two words", "write [kind name]")
        }
        let section = Section(kind: kind, name: words.count == 2 ? words[1] : nil, line: number)
        (title, isBelowHeader, current) = (section.title.printable, true, nil)
        if let first = sections.first(where: { $0.title == section.title }) {
            return report(number, title, "is already on line \(first.line)", "merge the two, or give them different names")
        }
        current = sections.count
        sections.append(section)
    }

    private mutating func parseEntry(_ line: ArraySlice<UInt8>, _ number: Int) {
        guard let equals = line.firstIndex(of: UInt8(ascii: "=")) else {
            if let current { sections[current].isComplete = false }
            return report(number, title, "\(Self.text(line).quoted) is no section, key or comment", "write 'key = value'")
        }
        let key = Self.text(Self.trim(line[..<equals]))
        let value = Self.text(Self.trim(line[(equals + 1)...]))
        guard !key.isEmpty else { return report(number, title, "there is no key before '='", "write 'key = value'") }
        guard !key.utf8.contains(where: Self.isBlank) else {
            return report(number, title, "\(key.quoted) is not one word", "write 'key = value'")
        }
        guard isBelowHeader else {
            return report(number, nil, "\(key.quoted) belongs to no section", "put a line such as [apus] above it")
        }
        guard let current else { return }
        if let first = sections[current].entries.first(where: { $0.key == key }) {
            return diagnostics.append(Diagnostic(source: source, line: number, section: title, key: key.printable,
                                                 message: "is already set on line \(first.line)", remedy: "remove one of the two"))
        }
        sections[current].entries.append(Entry(key: key, value: value, line: number))
    }

    private mutating func refuseHeader() {
        (isComplete, isBelowHeader, current, title) = (false, true, nil, nil)
    }

    private mutating func report(_ line: Int, _ section: String?, _ message: String, _ remedy: String) {
        diagnostics.append(Diagnostic(source: source, line: line, section: section, key: nil, message: message, remedy: remedy))
    }

    // Bytes, not characters, decide the structure: "=" with a combining mark behind it is another Character.
    private static func withoutComment(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var previousIsBlank = true
        for index in line.indices {
            if previousIsBlank, line[index] == UInt8(ascii: ";") || line[index] == UInt8(ascii: "#") { return line[..<index] }
            previousIsBlank = isBlank(line[index])
        }
        return line
    }

    private static func trim(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var line = line.drop(while: isBlank)
        while let last = line.last, isBlank(last) { line.removeLast() }
        return line
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }
}
