/// An `[xdp NAME]` section: a program and the ports it runs on.
public struct XDPConfiguration: Sendable, Equatable {
    public enum ChecksumMode: String, ConfigurationWord { case lazy, eager, full }

    public enum Verification: String, ConfigurationWord {
        case kernel
        static var later: [String] { ["sandbox"] }
    }

    public enum Engine: String, ConfigurationWord { case jit, interpreter }

    public var name: String
    /// The object file; a relative one has been joined to the directory of the configuration file.
    public var object: String
    /// nil: the only one the object has.
    public var program: String?
    /// Never empty, in the order of the file.
    public var ports: [String]
    public var checksum: ChecksumMode
    public var verify: Verification
    public var engine: Engine
    public var line: Int

    static let keys = Vocabulary(["object", "program", "ports", "checksum", "verify", "engine"],
                                 later: ["superframes", "netns", "chain", "map."])
}

extension XDPConfiguration {
    /// nil if what is missing has no stand-in; `ports` are what the caller found to exist.
    init?(reading reader: inout SectionReader, ports: [String], directory: String) {
        reader.checkKeys(Self.keys)
        line = reader.section.line
        checksum = reader.choice("checksum") ?? .lazy
        verify = reader.choice("verify") ?? .kernel
        engine = reader.choice("engine") ?? .jit
        program = reader.entry("program")?.value
        if let program, program.contains(where: { $0 == " " || $0 == "\t" }) {
            reader.report("program", "\(program.quoted) is not one word", "one program a section; name a second [xdp] section for another")
        }
        self.ports = ports
        let given = reader.require("object", "name the file, such as 'object = count.o'")
        guard let given, let name = reader.section.name, !ports.isEmpty else { return nil }
        object = given.utf8.first == UInt8(ascii: "/") || directory.isEmpty ? given : "\(directory)/\(given)"
        self.name = name
    }
}
