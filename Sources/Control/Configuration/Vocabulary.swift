/// The words allowed at one place of a configuration, and those the design has but this version has not: an operator who wrote a
/// documented word is told that it is early, not that it is wrong.
struct Vocabulary: Sendable {
    let known: [String]
    let later: [String]

    init(_ known: [String], later: [String] = []) {
        self.known = known
        self.later = later
    }

    enum Verdict: Equatable { case known, later, unknown }

    func verdict(on word: String) -> Verdict {
        // "map." stands for "map.NAME".
        func matches(_ entry: String) -> Bool { entry.hasSuffix(".") ? word.hasPrefix(entry) && word != entry : word == entry }
        if known.contains(where: matches) { return .known }
        return later.contains(where: matches) ? .later : .unknown
    }

    /// What to write instead of `word`.
    func remedy(for word: String) -> String {
        nearest(to: word).map { "did you mean '\(shown($0))'? \(allowed)" } ?? allowed
    }

    var allowed: String {
        let listed = known.prefix(16).map(shown).joined(separator: ", ")
        return "allowed: " + (known.isEmpty ? "none" : known.count > 16 ? listed + ", …" : listed)
    }

    private func shown(_ word: String) -> String { word.hasSuffix(".") ? word + "NAME" : word }

    /// The known word that was probably meant: it begins with `word`, or differs from it in at most a third of its letters.
    func nearest(to word: String) -> String? {
        let typed = Array(word.lowercased().utf8.prefix(64))
        var best: (word: String, distance: Int)?
        for candidate in known {
            let letters = Array(candidate.lowercased().utf8)
            let isAbbreviation = typed.count >= 3 && letters.starts(with: typed)
            let distance = isAbbreviation ? 1 : Self.editDistance(typed, letters)
            guard distance <= max(1, letters.count / 3), distance < (best?.distance ?? .max) else { continue }
            // One edit turns any one-letter word into any other: that is no likeness.
            if typed.count > 1 || distance == 0 { best = (candidate, distance) }
        }
        return best?.word
    }

    /// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
    static func editDistance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var beforePrevious: [Int] = []
        var previous = Array(0...b.count)
        for i in a.indices {
            var row = [i + 1]
            for j in b.indices {
                var distance = min(row[j] + 1, previous[j + 1] + 1, previous[j] + (a[i] == b[j] ? 0 : 1))
                if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { distance = min(distance, beforePrevious[j - 1] + 1) }
                row.append(distance)
            }
            (beforePrevious, previous) = (previous, row)
        }
        return previous[b.count]
    }
}

/// An enumeration whose cases are the words a key may have.
protocol ConfigurationWord: RawRepresentable, CaseIterable, Sendable where RawValue == String {
    /// Words of the design that this version has not.
    static var later: [String] { get }
}

extension ConfigurationWord {
    static var later: [String] { [] }
    static var vocabulary: Vocabulary { Vocabulary(allCases.map(\.rawValue), later: later) }
}
