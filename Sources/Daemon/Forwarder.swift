#if APUS_PLANTED
import CDPDK
#endif
import Control
import Dataplane
import DPDK
import EBPF
import Logging

/// The running forwarder: everything a configuration names, opened in order and closed in the opposite one.
final class Forwarder {
    private let logger: Logger
    /// Outlive everything that holds packets.
    private let pools: [NodePools]
    private var opener: PortOpener
    /// Outlive the lcores.
    private let programs: [LoadedProgram]
    private var compiler: ProgramCompiler?
    private var ports: [any OpenPort] = []
    private var bridges: [OpenBridge] = []
    /// What the lcores write to, so they outlive the lcores too, whoever else reads them.
    private var counters: [CounterBlock] = []
    private let controls: PortControls
    private let maps: MapCommands
    private var lcores: [PollingLcore] = []
    private var follower: PortFollower?
    private var socket: ControlSocket?
    private var commands: Commands?

    /// Opens everything and starts to forward. EAL runs on after the forwarder; one forwarder a process.
    /// - Throws: `LoadError`, `DPDKError` or `SocketError`, one sentence each.
    init(_ configuration: Configuration, availableCPUs: Set<Int>, logger: Logger) throws {
        self.logger = logger
        // Programs first: they need the kernel's permission and no packet memory. What parses objects is a process of
        // its own, so that a bad one is a message.
        let loader = configuration.programs.isEmpty ? nil : try LoaderProcess()
        programs = try configuration.programs.map { section in
            guard let loader else { preconditionFailure("there is a loader where there are programs") }
            let program = try loader.load(object: section.object, program: section.program, verify: Verification(section.verify))
            let how = program.isSandboxed ? "watched while it runs" : "verified by the kernel"
            logger.info("xdp \(section.name): \(program.name) of \(section.object), \(program.instructions) instructions, \(how)")
            for note in program.notes { logger.notice("xdp \(section.name): \(note)") }
            return program
        }
        let plan = try MemoryPlan(configuration, logger)
        let polling = configuration.daemon.lcores
        let others = availableCPUs.subtracting(polling).sorted()
        if others.isEmpty { logger.warning("every CPU polls: control work shares CPU \(polling[0])") }
        try EAL.start(name: configuration.daemon.name, memory: plan.memory, pollingCPUs: polling,
                      otherCPUs: others.isEmpty ? polling : others, pciAddresses: configuration.ports.compactMap(\.pciAddress), hasTelemetry: true)
        try LostMemory.survive()
        pools = try plan.shares.map { try NodePools($0, isOnly: plan.shares.count == 1, lcoreCount: polling.count) }
        for pools in pools { logger.info("packet memory: \(pools.summary)") }
        opener = PortOpener(plan: plan, pools: pools, lcores: polling, logger: logger)
        controls = PortControls(configuration.ports.map { $0.deliver == .full })
        for section in configuration.ports { ports.append(try opener.open(section)) }
        if ports.contains(where: { $0 is OpenVhost }) { logger.info("vhost-user: packets are copied by \(VhostLibrary.summary)") }
        // Ports have their numbers now, which maps may name.
        let indices = Dictionary(uniqueKeysWithValues: zip(configuration.ports.map(\.name), ports.map { $0.index }))
        maps = MapCommands(programs: zip(configuration.programs, programs).map { .init(section: $0.name, program: $1) }, ports: indices)
        try maps.fill(configuration)
        try start(configuration)
    }

    // MARK: Opening

    private func start(_ configuration: Configuration) throws {
        let cpus = configuration.daemon.lcores
        counters = cpus.map { _ in CounterBlock(portCount: ports.count, programCount: programs.count) }
        bridges = configuration.bridges.map { OpenBridge($0, ports: configuration.ports.map(\.name)) }
        // All queues before the first poll; then the slots are their lcore's.
        let shares = cpus.indices.map { share(ofLcore: $0, configuration) }
        for (number, cpu) in cpus.enumerated() {
            let received = shares[number].flatMap(\.received)
            let taps = received.filter(\.isExpensiveToPoll)
            // Looking in vain is dear only beside something else that wants the core.
            let isMixed = taps.count < received.count
            let watch = isMixed && !taps.isEmpty ? try TapWatch(over: taps) : TapWatch()
            let slots = unsafe slots(shares[number], areTapsWatched: isMixed, configuration, counters[number].own)
            let lcore = unsafe Lcore(slots: slots, memory: opener.pools(ofCPU: cpu).memory, counters: counters[number].own.lcore,
                                     checksums: counters[number].own.checksums, snapshot: counters[number].snapshot,
                                     idle: Idle(configuration.daemon.idle), watch: watch)
            lcores.append(try PollingLcore(lcore, onCPU: cpu))
        }
        follower = PortFollower(zip(configuration.ports, ports).map { ($1, RemotePolling($0, lcores: cpus)) }, lcores: counters, logger: logger)
        let reporter = StatsReporter(
            ports: zip(configuration.ports, ports).map { StatsReporter.Port(name: $0.name, index: $1.index) },
            programs: configuration.programs.map(\.name), lcores: Dictionary(uniqueKeysWithValues: zip(cpus, counters)),
            pools: pools.flatMap { [$0.small.use, $0.large.use] })
        Telemetry.start(reporter)
        let commands = Commands(configuration, ports: ports, controls: controls, bridges: bridges.map(\.view), reporter: reporter,
                                rings: counters.map(\.capture), maps: maps)
        self.commands = commands
        let wanted = zip(configuration.programs, programs).filter { $0.0.engine == .jit }.map { ($0.0.name, $0.1) }
        if !wanted.isEmpty { compiler = ProgramCompiler(wanted, logger: logger) }
        socket = try ControlSocket(path: configuration.daemon.statsSocket, commands: commands.all)
        logger.info("\(configuration.daemon.name): forwarding on CPU \(CPUList.text(cpus)), stats at \(configuration.daemon.statsSocket)")
    }

    /// What one lcore has of a port: the queue it sends by, and those it polls.
    private struct Share {
        let queue: PortQueue
        let received: [PortQueue]
    }

    /// Every port: an lcore sends by all of them and polls its share of their receive queues.
    private func share(ofLcore number: Int, _ configuration: Configuration) -> [Share] {
        let cpus = configuration.daemon.lcores
        return zip(configuration.ports, ports).map { section, port in
            let queue = { (index: Int) in
                var queue = port.queue(index, lcore: number, of: cpus.count)
                queue.policy = ReceivePolicy(infers: section.receiveChecksum.contains(.infer), verifies: section.receiveChecksum.contains(.verify))
                return queue
            }
            // Queue q goes to the port's lcore q, and around.
            let received = (0..<port.queueCount).filter { section.lcores[$0 % section.lcores.count] == cpus[number] }.map(queue)
            return Share(queue: received.first ?? queue(number), received: received)
        }
    }

    private func slots(_ shares: [Share], areTapsWatched: Bool, _ configuration: Configuration,
                       _ block: CounterBlock.View) -> UnsafeMutableBufferPointer<PortSlot> {
        var tapCount = 0
        let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: ports.count)
        for (port, section) in configuration.ports.enumerated() {
            let receivers = shares[port].received.map { queue in
                guard areTapsWatched, queue.isExpensiveToPoll else { return Receiver(queue) }
                defer { tapCount += 1 }
                return Receiver(queue, watchBit: TapWatch.bit(ofTap: tapCount))
            }
            unsafe slots.initializeElement(at: port, to: slot(port, section, configuration, block, shares[port].queue, receivers))
        }
        return unsafe slots
    }

    private func slot(_ number: Int, _ section: PortConfiguration, _ configuration: Configuration, _ block: CounterBlock.View,
                      _ queue: PortQueue, _ receivers: [Receiver]) -> PortSlot {
        let stages = configuration.programs.enumerated().filter { $0.element.ports.contains(section.name) }.map {
            ProgramStage(programs[$0.offset], mode: ChecksumMode($0.element.checksum), counters: block.program($0.offset))
        }
        let delivery = PortSlot.Delivery(isFull: section.deliver == .full, reseedsVerified: section.verified == .reseed,
                                         mtu: section.mtuBytes)
        var slot = unsafe PortSlot(queue: queue, receivers: receivers, index: ports[number].index, delivery: delivery,
                                   isFull: controls.isFull(number), counters: block.port(number), chain: stages)
        if let wire = configuration.wire(of: section.name) {
            let other = wire.first == section.name ? wire.second : wire.first
            slot.destination = configuration.ports.firstIndex { $0.name == other } ?? -1
        }
        if let name = configuration.bridge(of: section.name)?.name, let bridge = bridges.first(where: { $0.name == name }) {
            slot.bridge = bridge.member(section.vlan)
        }
        return slot
    }

    // MARK: Closing

    /// Stops forwarding and closes everything.
    /// - Returns: packets that did not come back to their pools; 0 unless there is a bug to report.
    func stop() -> Int {
        socket?.stop()
        commands?.stop()
        Telemetry.stop()
        follower?.stop()
        follower = nil
        for lcore in lcores { lcore.stop() }
        lcores.removeAll()
        compiler?.stop()
        compiler = nil
        // DPDK removes no device while it makes another, so a port that waits for its peer goes first.
        for port in ports where !port.hasPeer { port.close() }
        for port in ports where port.hasPeer { port.close() }
        #if APUS_PLANTED
        if apus_planted_lost_buffer() { unsafe _ = pools[0].small.allocator.allocate()?.release() }
        #endif
        let (small, large) = pools.reduce((0, 0)) { ($0.0 + $1.small.missing, $0.1 + $1.large.missing) }
        ports.removeAll()
        bridges.removeAll()
        let missing = small + large
        if missing == 0 { logger.info("stopped: every packet buffer is back") }
        else { logger.error("stopped: \(missing) packet buffers are missing (\(small) small, \(large) large)") }
        return missing
    }
}

extension ChecksumMode {
    init(_ configured: XDPConfiguration.ChecksumMode) {
        self = switch configured {
        case .lazy: .lazy
        case .eager: .eager
        case .full: .full
        }
    }
}

extension Verification {
    init(_ configured: XDPConfiguration.Verification) {
        self = switch configured {
        case .kernel: .kernel
        case .sandbox: .sandbox
        }
    }
}

extension Idle {
    init(_ configured: DaemonConfiguration.Idle) {
        self = switch configured {
        case .spin: .spin
        case .pause: .pause
        case .sleep: .sleep
        }
    }
}

extension PortConfiguration {
    fileprivate var pciAddress: String? { if case .pci(let address) = driver { address } else { nil } }
}
