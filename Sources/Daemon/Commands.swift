import Control
import Foundation

/// What the stats socket answers. Each command takes a snapshot on the socket's thread, or sets a flag.
@safe final class Commands: @unchecked Sendable {
    // @unchecked: the ports' peers are asked of thread-safe calls; everything else never changes, or is atomic.
    private let configuration: Configuration
    private let ports: [any OpenPort]
    private let controls: PortControls
    private let bridges: [OpenBridge.View]
    private let reporter: StatsReporter

    init(_ configuration: Configuration, ports: [any OpenPort], controls: PortControls, bridges: [OpenBridge.View], reporter: StatsReporter) {
        self.configuration = configuration
        self.ports = ports
        self.controls = controls
        self.bridges = bridges
        self.reporter = reporter
    }

    var all: [String: ControlSocket.Command] {
        ["stats": { _ in self.reporter.document().json },
         "ports": { _ in ControlReply.json(self.portsDocument()) },
         "bridge": { _ in ControlReply.json(BridgeDocument(bridges: Dictionary(uniqueKeysWithValues: self.bridges.map { ($0.name, $0.document()) }))) },
         "port": { words throws(CommandError) in try self.port(words) }]
    }

    private func portsDocument() -> PortsDocument {
        PortsDocument(ports: Dictionary(uniqueKeysWithValues: zip(configuration.ports, ports).enumerated().map { number, pair in
            let (section, port) = pair
            let forwarding = configuration.wire(of: section.name).map { "wire \($0.name)" }
                ?? configuration.bridge(of: section.name).map { "bridge \($0.name)" } ?? ""
            return (section.name, PortsDocument.Port(
                index: port.index, device: port.summary, queues: port.queueCount, lcores: section.lcores,
                deliver: controls.full(number) ? "full" : "offload", up: port.hasPeer, forwarding: forwarding))
        }))
    }

    /// `port set NAME KEY=VALUE…`
    private func port(_ words: [Substring]) throws(CommandError) -> Data {
        guard words.count >= 3, words[0] == "set" else { throw CommandError("write 'port set NAME deliver=full|offload'") }
        guard let number = configuration.ports.firstIndex(where: { $0.name == words[1] }) else {
            throw CommandError("there is no port '\(words[1])'; there are \(configuration.ports.map(\.name).joined(separator: ", "))")
        }
        var isFull: Bool?
        for setting in words[2...] {
            switch setting {
            case "deliver=full": isFull = true
            case "deliver=offload": isFull = false
            default: throw CommandError("'\(setting)' is no setting of a running port; allowed: deliver=full, deliver=offload")
            }
        }
        if let isFull { controls.setFull(number, isFull) }
        return ControlReply.json(["port": configuration.ports[number].name, "deliver": controls.full(number) ? "full" : "offload"])
    }
}
