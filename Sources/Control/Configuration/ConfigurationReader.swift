/// Turns the sections of a file into a `Configuration`, and checks them against each other. Everything wrong is noted before anyone
/// gives up, so that an operator mends a file once.
struct ConfigurationReader {
    static let sections = Vocabulary(["apus", "port", "wire", "bridge", "xdp"])
    static let sectionsAllowed = "allowed: [apus], [port NAME], [wire NAME], [bridge NAME], [xdp NAME]"
    /// As many port indices as DPDK has (RTE_MAX_ETHPORTS).
    static let portCountMax = 32

    private(set) var diagnostics: [Diagnostic]
    private let ini: INI
    private let source: String
    private let directory: String

    private var ports: [PortConfiguration] = []
    private var wires: [WireConfiguration] = []
    private var bridges: [BridgeConfiguration] = []
    private var programs: [XDPConfiguration] = []
    /// Ports by name even where their section has faults: whoever refers to one of them is not wrong.
    private var portNames: [String] = []
    /// What may be claimed once (a socket's path, a device, a port), and the section that has it.
    private var owners: [String: String] = [:]

    init(_ ini: INI, source: String, directory: String) {
        self.ini = ini
        self.source = source
        self.directory = directory
        diagnostics = ini.diagnostics
    }

    /// nil if there is no `[apus]` section; the value counts only if `diagnostics` is empty.
    mutating func read(availableCPUs: Set<Int>) -> Configuration? {
        defer { sortDiagnostics() }
        checkSections()
        let daemon = readDaemon(availableCPUs)
        readPorts(daemon)
        readWires()
        readBridges()
        readPrograms()
        checkForwarding()
        return daemon.map { Configuration(daemon: $0, ports: ports, wires: wires, bridges: bridges, programs: programs) }
    }

    private mutating func checkSections() {
        for section in ini.sections {
            var reader = SectionReader(section, source: source)
            switch Self.sections.verdict(on: section.kind) {
            case .later:
                reader.report(nil, "is not in this version", Self.sectionsAllowed)
            case .unknown:
                let nearest = Self.sections.nearest(to: section.kind).map { "did you mean '\($0)'? " } ?? ""
                reader.report(nil, "unknown section", nearest + Self.sectionsAllowed)
            case .known where section.kind == "apus":
                if section.name != nil { reader.report(nil, "takes no name", "write [apus]") } else { continue }
            case .known:
                switch section.name {
                case nil: reader.report(nil, "has no name", "write [\(section.kind) NAME]")
                case let name? where !Name.isValid(name): reader.report(nil, "\(name.quoted) is no name", Name.rule)
                default: continue
                }
            }
            // Its values are noted by whoever reads it, so only what was found here.
            if let last = reader.diagnostics.last { diagnostics.append(last) }
        }
        if ini.isComplete { checkPresence() }
    }

    private mutating func checkPresence() {
        func missing(_ section: String, _ remedy: String) -> Diagnostic {
            Diagnostic(source: source, line: 1, section: section, key: nil, message: "is missing", remedy: remedy)
        }
        let kinds = Set(ini.sections.map(\.kind))
        if !kinds.contains("apus") { diagnostics.append(missing("apus", "add [apus] with 'lcores = N'")) }
        if !kinds.contains("port") { diagnostics.append(missing("port NAME", "add two ports and a [wire NAME] that joins them")) }
    }

    private mutating func readDaemon(_ availableCPUs: Set<Int>) -> DaemonConfiguration? {
        guard let section = ini.sections.first(where: { $0.kind == "apus" }) else { return nil }
        var reader = SectionReader(section, source: source)
        let daemon = DaemonConfiguration(reading: &reader, availableCPUs: availableCPUs)
        if !daemon.statsSocket.isEmpty { owners[Self.socketKey(daemon.statsSocket)] = "[apus]" }
        diagnostics += reader.diagnostics
        return daemon
    }

    private mutating func readPorts(_ daemon: DaemonConfiguration?) {
        for section in ini.sections where section.kind == "port" {
            var reader = SectionReader(section, source: source)
            if let name = section.name { portNames.append(name) }
            if portNames.count == Self.portCountMax + 1 {
                reader.report(nil, "is one port too many", "at most \(Self.portCountMax) ports")
            }
            if let port = PortConfiguration(reading: &reader, daemonLcores: daemon?.lcores ?? []) {
                claimDevice(of: port, &reader)
                ports.append(port)
            }
            diagnostics += reader.diagnostics
        }
    }

    private mutating func claimDevice(of port: PortConfiguration, _ reader: inout SectionReader) {
        let (what, key, value): (String, String, String)
        switch port.driver {
        // The same name in two namespaces is two devices.
        case .tap(let interface, let netns, _, _): (what, key, value) = ("tap \(netns ?? "") \(interface)", "interface", interface)
        case .afXDP(let interface): (what, key, value) = ("af-xdp \(interface)", "interface", interface)
        // One listens and one connects: the two ends may be ports of one daemon.
        case .vhostUser(let path, .server), .virtioUser(let path, .server, _, _): (what, key, value) = (Self.socketKey(path), "path", path)
        case .vhostUser(let path, .client), .virtioUser(let path, .client, _, _):
            (what, key, value) = ("connection to \(Self.socketKey(path))", "path", path)
        case .pci(let address): (what, key, value) = ("pci \(address)", "address", address)
        case .pcap(_, .file(let path)?): (what, key, value) = ("pcap \(path)", "tx", path)
        case .vdev(let devargs):
            let device = String(devargs.prefix { $0 != "," })
            (what, key, value) = ("vdev \(device)", "devargs", device)
        case .pcap, .null: return
        }
        if let owner = claim(what, for: "[port \(port.name)]") {
            let noun = key == "path" ? "socket" : key == "tx" ? "file" : key == "interface" ? "interface" : "device"
            reader.report(key, "\(value.quoted) is already the \(noun) of \(owner)", key == "path" ? "give each its own" : "give each port its own")
        }
    }

    private mutating func readWires() {
        for section in ini.sections where section.kind == "wire" {
            var reader = SectionReader(section, source: source)
            reader.checkKeys(WireConfiguration.keys)
            if reader.require("ports", "write 'ports = A B'") != nil {
                let named = reader.words("ports")
                let existing = existingPorts(named, &reader)
                for port in existing {
                    claimForwarding(port, section, &reader)
                }
                if named.count != 2 {
                    reader.report("ports", "a wire joins two different ports, not \(named.count)", "write 'ports = A B'")
                } else if existing.count == 2, let name = section.name {
                    wires.append(WireConfiguration(name: name, first: named[0], second: named[1], line: section.line))
                }
            }
            diagnostics += reader.diagnostics
        }
    }

    private mutating func claimForwarding(_ port: String, _ section: INI.Section, _ reader: inout SectionReader) {
        guard let owner = claim("forwarding \(port)", for: "[\(section.title.printable)]") else { return }
        reader.report("ports", "port \(port) is already in \(owner)", "a port is in one [wire] or [bridge] only")
    }

    private mutating func readBridges() {
        for section in ini.sections where section.kind == "bridge" {
            var reader = SectionReader(section, source: source)
            reader.checkKeys(BridgeConfiguration.keys)
            if reader.require("ports", "name the ports that the bridge joins") != nil {
                let named = reader.words("ports")
                let existing = existingPorts(named, &reader)
                for port in existing { claimForwarding(port, section, &reader) }
                if named.count < 2 { reader.report("ports", "a bridge joins at least two ports", "write 'ports = A B'") }
                checkVLANs(existing, &reader)
                if let bridge = BridgeConfiguration(reading: &reader, ports: existing) { bridges.append(bridge) }
            }
            diagnostics += reader.diagnostics
        }
        let bridged = Set(bridges.flatMap(\.ports))
        for port in ports where port.vlan != nil && !bridged.contains(port.name) {
            guard let section = ini.sections.first(where: { $0.line == port.line }) else { continue }
            var reader = SectionReader(section, source: source)
            reader.report("vlan", "port \(port.name) is in no [bridge]", "only a bridge knows VLANs")
            if let last = reader.diagnostics.last { diagnostics.append(last) }
        }
    }

    /// A port without VLANs among others with them would be in none of theirs.
    private func checkVLANs(_ names: [String], _ reader: inout SectionReader) {
        let members = ports.filter { names.contains($0.name) }
        let without = members.filter { $0.vlan == nil }.map(\.name)
        guard !without.isEmpty, without.count < members.count else { return }
        reader.report("ports", "port \(without[0]) has no 'vlan' and others of the bridge have one", "give every port of a bridge one, or none")
    }

    private mutating func readPrograms() {
        for section in ini.sections where section.kind == "xdp" {
            var reader = SectionReader(section, source: source)
            let existing = reader.require("ports", "name the ports the program runs on") == nil
                ? [] : existingPorts(reader.words("ports"), &reader)
            for port in existing {
                if let owner = claim("xdp \(port)", for: "[\(section.title.printable)]") {
                    reader.report("ports", "port \(port) already has \(owner), and chains are not in this version",
                                  "one [xdp] a port in this version")
                }
            }
            if let program = XDPConfiguration(reading: &reader, ports: existing, directory: directory) { programs.append(program) }
            diagnostics += reader.diagnostics
        }
    }

    /// A port that goes nowhere would swallow its packets in silence: an error, not a warning.
    private mutating func checkForwarding() {
        guard ini.isComplete else { return }
        for section in ini.sections where section.kind == "port" {
            guard let name = section.name, Name.isValid(name), owners["forwarding \(name)"] == nil else { continue }
            var reader = SectionReader(INI.Section(kind: section.kind, name: name, line: section.line), source: source)
            reader.report(nil, "port \(name) is in no [wire] or [bridge]", "add a [wire NAME] with 'ports = \(name) OTHER'")
            diagnostics += reader.diagnostics
        }
    }

    private func existingPorts(_ named: [String], _ reader: inout SectionReader) -> [String] {
        let vocabulary = Vocabulary(portNames)
        return named.filter { name in
            // Below a header that could not be read every name may be right.
            if portNames.contains(name) || !ini.isComplete { return portNames.contains(name) }
            reader.report("ports", "there is no port \(name.quoted)", vocabulary.remedy(for: name))
            return false
        }
    }

    /// nil, or whose it is already.
    private mutating func claim(_ what: String, for owner: String) -> String? {
        if let other = owners[what] { return other }
        owners[what] = owner
        return nil
    }

    /// The same file for `/run//a.sock` and `/run/./a.sock`. ".." stays: what it means depends on links.
    private static func socketKey(_ path: String) -> String {
        "socket " + path.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
    }

    private mutating func sortDiagnostics() {
        let order = diagnostics.enumerated().sorted { ($0.element.line, $0.offset) < ($1.element.line, $1.offset) }
        diagnostics = order.map(\.element)
    }
}
