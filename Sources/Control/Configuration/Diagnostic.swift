/// One thing wrong in a configuration file, as an operator reads it: `FILE:LINE: [section name] key: message; remedy`.
public struct Diagnostic: Sendable, Equatable, CustomStringConvertible {
    public let source: String
    /// From 1; 0 where the file as a whole is meant (it cannot be read).
    public let line: Int
    /// The words between the brackets, where the line belongs to a section.
    public let section: String?
    public let key: String?
    public let message: String
    /// What to do, or what is allowed.
    public let remedy: String

    public var description: String {
        var text = line > 0 ? "\(source):\(line): " : "\(source): "
        switch (section, key) {
        case (let section?, let key?): text += "[\(section)] \(key): "
        case (let section?, nil): text += "[\(section)]: "
        case (nil, let key?): text += "\(key): "
        case (nil, nil): break
        }
        return text + "\(message); \(remedy)"
    }
}

/// Everything wrong with a configuration, by line. Nothing is started from a file that has any.
public struct ConfigurationErrors: Error, Sendable, Equatable, CustomStringConvertible {
    public let diagnostics: [Diagnostic]

    public var description: String { diagnostics.map(\.description).joined(separator: "\n") }
}

extension String {
    /// The text in quotes, fit for a terminal: what does not print is escaped, what is long is cut.
    var quoted: String { "'\(printable)'" }

    var printable: String {
        let scalarCountMax = 64
        var text = ""
        for scalar in unicodeScalars.prefix(scalarCountMax) {
            switch scalar.properties.generalCategory {
            case _ where scalar == " ": text.unicodeScalars.append(scalar)
            // Bidirectional marks and odd spaces too: an error must show why two equal-looking words differ.
            case .control, .format, .lineSeparator, .paragraphSeparator, .spaceSeparator, .unassigned, .privateUse:
                text += "\\u{\(String(scalar.value, radix: 16))}"
            default: text.unicodeScalars.append(scalar)
            }
        }
        return unicodeScalars.count > scalarCountMax ? text + "…" : text
    }
}
