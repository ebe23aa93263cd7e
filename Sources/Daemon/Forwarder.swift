import Control
import Dataplane
import DPDK
import EBPF
import Logging

/// The running forwarder: everything a configuration names, opened in order and closed in the opposite one.
final class Forwarder {
    private let logger: Logger
    private let small: PacketPool
    private let large: PacketPool
    /// Outlive the lcore.
    private let programs: [LoadedProgram]
    private var ports: [any OpenPort] = []
    /// What the lcore writes to, so it outlives the lcore too, whoever else reads it.
    private var counters: CounterBlock?
    private var lcore: PollingLcore?
    private var socket: ControlSocket?

    /// Opens everything and starts to forward. EAL runs on after the forwarder; one forwarder a process.
    /// - Throws: `LoadError`, `DPDKError` or `SocketError`, one sentence each.
    init(_ configuration: Configuration, availableCPUs: Set<Int>, logger: Logger) throws {
        self.logger = logger
        // Programs first: they need the kernel's permission and no packet memory.
        programs = try configuration.programs.map { section in
            let program = try ProgramLoader.load(object: section.object, program: section.program, verify: .kernel)
            logger.info("xdp \(section.name): \(program.name) of \(section.object), \(program.instructions) instructions, verified by the kernel, interpreted")
            return program
        }
        let plan = MemoryPlan(bytes: configuration.daemon.memoryBytes,
                              memory: try Self.memory(configuration.daemon, logger))
        let polling = configuration.daemon.lcores
        let others = availableCPUs.subtracting(polling).sorted()
        if others.isEmpty { logger.warning("every CPU polls: control work shares CPU \(polling[0])") }
        try EAL.start(name: configuration.daemon.name, memory: plan.memory, pollingCPUs: polling, otherCPUs: others.isEmpty ? polling : others)
        small = try PacketPool(name: "small", capacity: plan.smallCount, room: TapQueue.smallRoom, cache: 256)
        large = try PacketPool(name: "large", capacity: plan.largeCount, room: PacketPool.largestRoom, cache: 32)
        logger.info("packet memory: \(plan.smallCount) buffers of \(TapQueue.smallRoom) bytes, \(plan.largeCount) of \(PacketPool.largestRoom)")
        for section in configuration.ports { ports.append(try open(section)) }
        try start(configuration)
    }

    // MARK: Opening

    private static func memory(_ daemon: DaemonConfiguration, _ logger: Logger) throws(DPDKError) -> EAL.Memory {
        let megabytes = daemon.memoryBytes >> 20
        let free = EAL.freeHugepageMegabytes()
        let isEnough = free >= megabytes
        switch daemon.hugepages {
        case .on where !isEnough:
            throw DPDKError.needsHugepages(megabytes: megabytes, free: free)
        case .off:
            logger.info("packet memory: \(megabytes) MB of normal pages, as configured")
            return .normalPages(megabytes: megabytes)
        case .auto where !isEnough:
            logger.warning("packet memory: \(free) MB of hugepages are free and \(megabytes) MB are needed: normal pages instead, at some cost in speed (reserve with 'echo \((megabytes + 1) / 2) > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages')")
            return .normalPages(megabytes: megabytes)
        case .auto, .on:
            logger.info("packet memory: \(megabytes) MB of hugepages")
            return .hugepages(megabytes: megabytes)
        }
    }

    private func open(_ section: PortConfiguration) throws(DPDKError) -> any OpenPort {
        let port: any OpenPort
        switch section.driver {
        case .tap(let interface, let netns):
            port = try OpenTap(interface: interface, netns: netns, mtu: section.mtuBytes, small: small.allocator,
                               large: large.allocator)
        case .vhostUser(let path, let role):
            let index = UInt32(65_536 + ports.count { $0 is OpenVhost })
            port = try OpenVhost(name: section.name, path: path, role: role == .server ? .server : .client, index: index,
                                 pool: large)
        }
        logger.info("port \(section.name): \(port.summary), index \(port.index), deliver \(section.deliver.rawValue)")
        return port
    }

    private func start(_ configuration: Configuration) throws {
        let cpu = configuration.daemon.lcores[0]
        let block = CounterBlock(portCount: ports.count, programCount: programs.count)
        let memory = PacketMemory(small: small.allocator, large: large.allocator, smallBytes: TapQueue.smallFrameMax)
        let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: ports.count)
        for (number, section) in configuration.ports.enumerated() {
            unsafe slots.initializeElement(at: number, to: slot(number, section, configuration, block))
        }
        counters = block
        // The lcore owns the slots from here on.
        let lcore = unsafe Lcore(slots: slots, memory: memory, counters: block.lcore, checksums: block.checksums)
        self.lcore = try PollingLcore(lcore, onCPU: cpu)
        let reporter = StatsReporter(
            ports: zip(configuration.ports, ports).map { StatsReporter.Port(name: $0.name, index: $1.index) },
            programs: configuration.programs.map(\.name), lcores: [cpu: block])
        socket = try ControlSocket(path: configuration.daemon.statsSocket,
                                   commands: ["stats": { _ in reporter.document().json }])
        logger.info("\(configuration.daemon.name): forwarding on CPU \(cpu), stats at \(configuration.daemon.statsSocket)")
    }

    private func slot(_ number: Int, _ section: PortConfiguration, _ configuration: Configuration,
                      _ block: CounterBlock) -> PortSlot {
        let stages = configuration.programs.enumerated().filter { $0.element.ports.contains(section.name) }.map {
            ProgramStage(programs[$0.offset], mode: ChecksumMode($0.element.checksum), counters: block.program($0.offset))
        }
        let delivery = PortSlot.Delivery(isFull: section.deliver == .full, reseedsVerified: section.verified == .reseed,
                                         mtu: section.mtuBytes)
        var queue = ports[number].queue
        queue.policy = ReceivePolicy(infers: section.receiveChecksum.contains(.infer),
                                     verifies: section.receiveChecksum.contains(.verify))
        var slot = PortSlot(queue: queue, index: ports[number].index, delivery: delivery,
                            counters: block.port(number), chain: stages)
        if let wire = configuration.wire(of: section.name) {
            let other = wire.first == section.name ? wire.second : wire.first
            slot.destination = configuration.ports.firstIndex { $0.name == other } ?? -1
        }
        return slot
    }

    // MARK: Closing

    /// Stops forwarding and closes everything.
    /// - Returns: packets that did not come back to their pools; 0 unless there is a bug to report.
    func stop() -> Int {
        socket?.stop()
        lcore?.stop()
        lcore = nil
        ports.removeAll()
        let missing = small.missing + large.missing
        if missing == 0 { logger.info("stopped: every packet buffer is back") }
        else { logger.error("stopped: \(missing) packet buffers are missing (\(small.missing) small, \(large.missing) large)") }
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
