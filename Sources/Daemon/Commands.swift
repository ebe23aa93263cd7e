import Control
import DPDK
import Foundation
import Synchronization

/// What the stats socket answers. Each command takes a snapshot on the socket's thread, or sets a flag.
@safe final class Commands: @unchecked Sendable {
    // @unchecked: the ports' peers are asked of thread-safe calls; everything else never changes, or is atomic.
    private let configuration: Configuration
    private let ports: [any OpenPort]
    private let controls: PortControls
    private let bridges: [OpenBridge.View]
    private let reporter: StatsReporter
    private let rings: [CaptureRing]
    private let maps: MapCommands
    private let capture = Mutex<CaptureSession?>(nil)

    init(_ configuration: Configuration, ports: [any OpenPort], controls: PortControls, bridges: [OpenBridge.View], reporter: StatsReporter,
         rings: [CaptureRing], maps: MapCommands) {
        self.configuration = configuration
        self.ports = ports
        self.controls = controls
        self.bridges = bridges
        self.reporter = reporter
        self.rings = rings
        self.maps = maps
    }

    var all: [String: ControlSocket.Command] {
        ["stats": { _ in self.reporter.document().json },
         "ports": { _ in ControlReply.json(self.portsDocument()) },
         "bridge": { _ in ControlReply.json(BridgeDocument(bridges: Dictionary(uniqueKeysWithValues: self.bridges.map { ($0.name, $0.document()) }))) },
         "map": { words throws(CommandError) in try self.maps.map(words) },
         "trace": { _ in self.maps.trace() },
         "capture": { words throws(CommandError) in try self.capture(words) },
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

    /// `capture FIFO [LENGTH [PORT]]`
    private func capture(_ words: [Substring]) throws(CommandError) -> Data {
        guard let fifo = words.first, words.count <= 3, let lengthMax = words.count > 1 ? Int(words[1]) : 65_535,
              (1...262_144).contains(lengthMax) else {
            throw CommandError("write 'capture FIFO [LENGTH [PORT]]'")
        }
        let names = configuration.ports.map(\.name)
        let port = words.count > 2 ? names.firstIndex(of: String(words[2])) : nil
        if words.count > 2, port == nil { throw CommandError("there is no port '\(words[2])'; there are \(names.joined(separator: ", "))") }
        let result = capture.withLock { session -> Result<Void, CommandError> in
            if let session, !session.hasEnded { return .failure(CommandError("another capture runs: end it first")) }
            return Result { () throws(CommandError) in
                session = try CaptureSession(rings: rings, names: names, port: port, lengthMax: lengthMax, fifo: String(fifo))
            }
        }
        try result.get()
        return ControlReply.json(["capture": port.map { names[$0] } ?? "all"])
    }

    /// Before the lcores' memory goes.
    func stop() { capture.withLock { $0?.stop() } }
}
