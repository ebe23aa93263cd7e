/// A place in the program's source, from the object's line information.
public struct SourceLine: Hashable, Sendable, Codable, CustomStringConvertible {
    public let file: String
    public let line: Int

    public var description: String { "\(file):\(line)" }
}

/// Why an object was not loaded. One message for the operator: object, program, instruction and source line where
/// known, and what to do where something can be done.
public struct LoadError: Error, Equatable, Sendable, Codable, CustomStringConvertible {
    public enum Kind: String, Equatable, Sendable, Codable {
        case unreadable           // the file could not be read
        case malformed            // not an object, or one that contradicts itself
        case noSuchProgram        // the program named is not there, or none was named and there are several
        case unsupported          // a map type, helper, relocation, instruction or section Apus does not know
        case refused              // by the kernel's verifier
        case mismatch             // libbpf relocated the object to other instructions than Apus: a bug, not the operator's
        case notPermitted         // this process may not ask the kernel
        case unavailable          // this way of verification does not exist yet
    }

    public let kind: Kind
    public let object: String
    public let program: String?
    /// Index into the final, linked program.
    public let instruction: Int?
    public let source: SourceLine?
    public let message: String

    init(_ kind: Kind, object: String, program: String? = nil, instruction: Int? = nil, source: SourceLine? = nil,
         _ message: String) {
        self.kind = kind
        self.object = object
        self.program = program.map(LoadError.printable)
        self.instruction = instruction
        self.source = source
        // Names come from the object, and may be anything; only verifiers have several lines to say.
        self.message = kind == .refused ? message : LoadError.printable(message)
    }

    /// On one line, whatever the object calls its things.
    private static func printable(_ text: String) -> String {
        if text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) { return text }
        return text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? "\\u{\(String($0.value, radix: 16))}" : String($0) }.joined()
    }

    public var description: String {
        var place = object
        if let program { place += ": program \(program)" }
        if let instruction { place += ", instruction \(instruction)" }
        if let source { place += " (\(source))" }
        return "\(place): \(message)"
    }
}

/// A contradiction in an object's bytes, before it is known whose.
struct Malformed: Error, Equatable {
    let message: String

    init(_ message: String) { self.message = message }
}
