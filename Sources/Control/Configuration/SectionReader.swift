/// Reads the values of one section. What is wrong is noted, and a stand-in returned, so that one pass finds everything; whoever
/// started the reading throws if anything was noted.
struct SectionReader {
    let section: INI.Section
    private(set) var diagnostics: [Diagnostic] = []
    private let source: String

    init(_ section: INI.Section, source: String) {
        self.section = section
        self.source = source
        for entry in section.entries where entry.value.isEmpty {
            report(entry.key, "has no value", "give one or remove the line")
        }
    }

    /// The entry, if it is there and has a value.
    func entry(_ key: String) -> INI.Entry? {
        section.entries.first { $0.key == key && !$0.value.isEmpty }
    }

    mutating func require(_ key: String, _ remedy: String) -> String? {
        guard !section.entries.contains(where: { $0.key == key }) else { return entry(key)?.value }
        if section.isComplete { report(nil, "has no '\(key)'", remedy) }
        return nil
    }

    /// Notes a fault at the line of `key`, or at the section's own where the key is absent or none.
    mutating func report(_ key: String?, _ message: String, _ remedy: String) {
        let line = key.flatMap { key in section.entries.first { $0.key == key }?.line } ?? section.line
        diagnostics.append(Diagnostic(source: source, line: line, section: section.title.printable, key: key?.printable,
                                      message: message, remedy: remedy))
    }

    /// Notes every key that is not in `vocabulary`; `elsewhere` are keys that exist, but not in `owner`.
    mutating func checkKeys(_ vocabulary: Vocabulary, elsewhere: [String] = [], owner: String = "") {
        for entry in section.entries {
            switch vocabulary.verdict(on: entry.key) {
            case .known: break
            case .later: report(entry.key, "is not in this version", vocabulary.allowed)
            case .unknown where elsewhere.contains(entry.key): report(entry.key, "\(owner) has no such key", vocabulary.allowed)
            case .unknown: report(entry.key, "unknown key", vocabulary.remedy(for: entry.key))
            }
        }
    }

    /// The value as one of a fixed set of words; nil if the key is absent or the word is not one of them.
    mutating func choice<Word: ConfigurationWord>(_ key: String, of type: Word.Type = Word.self) -> Word? {
        entry(key).flatMap { word($0.value, key) }
    }

    /// The value as some of a fixed set of words, separated by blanks; nil if the key is absent or none of them is right.
    mutating func choices<Word: ConfigurationWord>(_ key: String, of type: Word.Type = Word.self) -> [Word]? {
        let chosen: [Word] = words(key).compactMap { word($0, key) }
        return chosen.isEmpty ? nil : chosen
    }

    private mutating func word<Word: ConfigurationWord>(_ value: String, _ key: String) -> Word? {
        if let word = Word(rawValue: value) { return word }
        if Word.vocabulary.verdict(on: value) == .later {
            report(key, "\(value.quoted) is not in this version", Word.vocabulary.allowed)
        } else {
            report(key, "unknown value \(value.quoted)", Word.vocabulary.remedy(for: value))
        }
        return nil
    }

    mutating func integer(_ key: String, in range: ClosedRange<Int>) -> Int? {
        guard let value = entry(key)?.value else { return nil }
        if let number = Decimal.parse(value), range.contains(number) { return number }
        report(key, "\(value.quoted) is not a number from \(range.lowerBound) to \(range.upperBound)", "write digits only")
        return nil
    }

    mutating func cpus(_ key: String) -> [Int]? {
        guard let value = entry(key)?.value else { return nil }
        do {
            return try CPUList.parse(value)
        } catch {
            report(key, error.message, "write a list such as 1-3,5")
            return nil
        }
    }

    /// Words separated by blanks, each of them once.
    mutating func words(_ key: String) -> [String] {
        guard let value = entry(key)?.value else { return [] }
        var words: [String] = []
        for word in value.split(whereSeparator: { $0 == " " || $0 == "\t" }).map(String.init) {
            if words.contains(word) { report(key, "\(word.quoted) is named twice", "name it once") } else { words.append(word) }
        }
        return words
    }

    /// The value as a socket's path: absolute, because a daemon's working directory is nobody's promise, and short enough for
    /// `sockaddr_un`, whose 108 bytes hold a terminating zero.
    mutating func checkedSocketPath(_ path: String, _ key: String) -> String? {
        guard path.utf8.first == UInt8(ascii: "/"), path.utf8.last != UInt8(ascii: "/") else {
            report(key, "\(path.quoted) is not an absolute path of a file", "start it with '/', such as /run/apus/\(section.name ?? "apus0").sock")
            return nil
        }
        guard path.utf8.count <= UnixSocket.pathBytesMax else {
            report(key, "is \(path.utf8.count) bytes long", "a socket's path has at most \(UnixSocket.pathBytesMax)")
            return nil
        }
        return path
    }
}
