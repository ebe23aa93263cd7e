internal import Glibc

/// A configuration file, whole and consistent: every name in it exists, every value is allowed.
public struct Configuration: Sendable, Equatable {
    public var daemon: DaemonConfiguration
    /// Ports, wires, bridges and programs in the order of the file.
    public var ports: [PortConfiguration]
    public var wires: [WireConfiguration]
    public var bridges: [BridgeConfiguration]
    public var programs: [XDPConfiguration]

    /// Reads and checks `path`. Errors name it as it is given here; relative object paths are taken from its directory.
    public static func load(path: String, availableCPUs: Set<Int>) throws(ConfigurationErrors) -> Configuration {
        let bytes = try read(path)
        let directory = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? ""
        return try load(bytes: bytes, source: path, directory: directory, availableCPUs: availableCPUs)
    }

    /// The same from text. `source` is what errors call it, `directory` where relative object paths start.
    public static func load(text: String, source: String = "configuration", directory: String = "",
                            availableCPUs: Set<Int>) throws(ConfigurationErrors) -> Configuration {
        try load(bytes: Array(text.utf8), source: source, directory: directory, availableCPUs: availableCPUs)
    }

    static func load(bytes: [UInt8], source: String, directory: String,
                     availableCPUs: Set<Int>) throws(ConfigurationErrors) -> Configuration {
        var reader = ConfigurationReader(INI(parsing: bytes, source: source), source: source, directory: directory)
        let configuration = reader.read(availableCPUs: availableCPUs)
        guard let configuration, reader.diagnostics.isEmpty else {
            throw ConfigurationErrors(diagnostics: reader.diagnostics)
        }
        return configuration
    }

    /// The bridge a port is in; every port is in one or in a wire.
    public func bridge(of port: String) -> BridgeConfiguration? { bridges.first { $0.ports.contains(port) } }

    /// The wire a port is in; every port is in one or in a bridge.
    public func wire(of port: String) -> WireConfiguration? {
        wires.first { $0.first == port || $0.second == port }
    }

    /// Not Foundation's readers: their errors say neither what nor why in one sentence, and they read a device without end.
    private static func read(_ path: String) throws(ConfigurationErrors) -> [UInt8] {
        func failure(_ code: Int32) -> ConfigurationErrors {
            ConfigurationErrors(diagnostics: [Diagnostic(
                source: path, line: 0, section: nil, key: nil,
                message: "cannot be read: \(SystemError.text(code))", remedy: "give the path of a configuration file")])
        }
        // O_NONBLOCK: opening a FIFO without a writer must not wait for one.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw failure(errno) }
        let file = Descriptor(owning: descriptor)
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        // One chunk more than INI takes lets it say "too long".
        while bytes.count <= INI.fileBytesMax {
            let count = unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(file.raw, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure(errno) }
            if count == 0 { break }
            bytes += chunk[..<count]
        }
        return bytes
    }
}
