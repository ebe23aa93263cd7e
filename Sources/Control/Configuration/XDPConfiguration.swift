/// An `[xdp NAME]` section: a program and the ports it runs on.
public struct XDPConfiguration: Sendable, Equatable {
    public enum ChecksumMode: String, ConfigurationWord { case lazy, eager, full }

    public enum Verification: String, ConfigurationWord { case kernel, sandbox }

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
    /// Initial contents of maps, in the order of the file.
    public var maps: [MapFile]
    public var line: Int

    /// `map.NAME = FILE`; a relative file has been joined to the directory of the configuration file.
    public struct MapFile: Sendable, Equatable {
        public var name: String
        public var file: String
        public var line: Int
    }

    static let keys = Vocabulary(["object", "program", "ports", "checksum", "verify", "engine", "map."],
                                 later: ["superframes", "netns", "chain"])
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
        func joined(_ path: String) -> String { path.utf8.first == UInt8(ascii: "/") || directory.isEmpty ? path : "\(directory)/\(path)" }
        maps = reader.section.entries.filter { $0.key.hasPrefix("map.") && $0.key != "map." && !$0.value.isEmpty }
            .map { MapFile(name: String($0.key.dropFirst(4)), file: joined($0.value), line: $0.line) }
        let given = reader.require("object", "name the file, such as 'object = count.o'")
        guard let given, let name = reader.section.name, !ports.isEmpty else { return nil }
        object = joined(given)
        self.name = name
    }
}
