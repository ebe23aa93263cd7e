import Control
import DPDK
import Logging

/// How `[apus] memory` is shared out: over the NUMA nodes that poll, each the same, and there over pools.
struct MemoryPlan {
    /// What one node holds, or the host where nodes are not told apart.
    struct Share: Equatable {
        /// nil: wherever the memory lies.
        let node: Int?
        /// Buffers that hold a whole superframe each.
        let largeCount: Int
        /// Buffers for everything else.
        let smallCount: Int
        /// For the pools that ports have for themselves.
        let ownBytes: Int
        /// A burst of superframes for each of a few ports.
        var isEnough: Bool { largeCount >= 128 }

        /// What own pools leave: three quarters for superframes, an eighth for small packets; the rest is for rings and the
        /// library.
        init(node: Int?, bytes: Int, ownPoolCount: Int, _ memory: EAL.Memory) {
            let small = MemoryPlan.bytes(ofBuffer: TapQueue.smallRoom, memory), large = MemoryPlan.bytes(ofBuffer: PacketPool.largestRoom, memory)
            self.node = node
            ownBytes = ownPoolCount * MemoryPlan.ownPoolBuffers * small
            let shared = max(bytes - ownBytes, 0)
            largeCount = min(shared / 4 * 3 / large, 8192)
            smallCount = min(shared / 8 / small, 131_072)
        }
    }

    let memory: EAL.Memory
    let shares: [Share]

    /// Buffers of a pool that an AF_XDP queue has for itself.
    static let ownPoolBuffers = 4096

    /// - Throws: what is missing where hugepages are insisted on, or what is too little, one sentence each.
    init(_ configuration: Configuration, _ logger: Logger) throws(DPDKError) {
        let daemon = configuration.daemon
        let polling = Set(daemon.lcores.compactMap(NUMA.node(ofCPU:))).sorted()
        memory = try Self.pages(daemon, nodes: polling, logger)
        // Normal pages lie where the kernel puts them, which DPDK does not ask.
        let nodes: [Int?] = if case .hugepages(_, let nodes) = memory, !nodes.isEmpty { nodes } else { [nil] }
        shares = Self.shares(configuration, nodes, memory)
        for share in shares where !share.isEnough {
            let own = share.ownBytes >> 20, least = (own + 16) * shares.count
            let place = share.node.map { " on NUMA node \($0), one of \(nodes.count)" } ?? ""
            throw DPDKError("memory = \(daemon.memoryBytes >> 20)M is too little: AF_XDP queues take \(own) MB for themselves\(place); say at least 'memory = \(least)M' in [apus]")
        }
    }

    private static func shares(_ configuration: Configuration, _ nodes: [Int?], _ memory: EAL.Memory) -> [Share] {
        nodes.map { node in
            let own = configuration.ports.filter { Self.home(of: $0, nodes) == node }.reduce(0) { $0 + $1.ownPoolCount }
            return Share(node: node, bytes: configuration.daemon.memoryBytes / nodes.count, ownPoolCount: own, memory)
        }
    }

    /// The share that a port's buffers come from: where its device is, else where it is polled.
    func home(of section: PortConfiguration) -> Int {
        shares.firstIndex { $0.node == Self.home(of: section, shares.map(\.node)) } ?? 0
    }

    /// The share that an lcore makes packets from.
    func home(ofCPU cpu: Int) -> Int { shares.firstIndex { $0.node == NUMA.node(ofCPU: cpu) } ?? 0 }

    private static func home(of section: PortConfiguration, _ nodes: [Int?]) -> Int? {
        let places = [section.deviceNode, NUMA.node(ofCPU: section.lcores[0])]
        return places.first { $0 != nil && nodes.contains($0) } ?? nodes[0]
    }

    /// The pool adds mbuf header and cache-line padding, under 384 bytes, and what it leaves free; and it lets no buffer cross a page
    /// that it could fit into (rte_mempool_op_calc_mem_size_helper), which counts where pages are small.
    private static func bytes(ofBuffer room: Int, _ memory: EAL.Memory) -> Int {
        let bytes = room + PacketPool.spacing(room: room) + 384
        guard case .normalPages = memory else { return bytes }
        return (bytes + 4095) & ~4095
    }

    // MARK: Pages

    private static func pages(_ daemon: DaemonConfiguration, nodes: [Int], _ logger: Logger) throws(DPDKError) -> EAL.Memory {
        let megabytes = daemon.memoryBytes >> 20
        let lack = lack(megabytes, nodes)
        switch daemon.hugepages {
        case .on:
            if let lack { throw DPDKError.needsHugepages(megabytes: lack.megabytes, free: lack.free, node: lack.node) }
        case .off:
            try checkNormalPages(megabytes)
            logger.info("packet memory: \(megabytes) MB of normal pages, as configured")
            return .normalPages(megabytes: megabytes)
        case .auto:
            guard let lack else { break }
            try checkNormalPages(megabytes)
            let place = lack.node.map { " on NUMA node \($0)" } ?? ""
            logger.warning("packet memory: \(lack.free) MB of hugepages are free\(place) and \(lack.megabytes) MB are needed: normal pages instead, at some cost in speed (reserve with '\(EAL.reserving(megabytes: lack.megabytes, node: lack.node))')")
            return .normalPages(megabytes: megabytes)
        }
        let memory = EAL.Memory.hugepages(megabytes: megabytes, nodes: nodes)
        logger.info("packet memory: \(memory)")
        return memory
    }

    /// What the first node that has too few hugepages has of them; nil where all have enough.
    private static func lack(_ megabytes: Int, _ nodes: [Int]) -> (node: Int?, megabytes: Int, free: Int)? {
        let places: [Int?] = nodes.isEmpty ? [nil] : nodes
        let each = megabytes / places.count
        return places.lazy.map { ($0, each, EAL.freeHugepageMegabytes(node: $0)) }.first { $0.2 < each }
    }

    /// DPDK takes all of it at once, and the kernel would end some process to give it.
    private static func checkNormalPages(_ megabytes: Int) throws(DPDKError) {
        guard let available = EAL.availableMegabytes(), megabytes > available else { return }
        throw DPDKError.needsMemory(megabytes: megabytes, available: available)
    }
}

extension PortConfiguration {
    /// The NUMA node of the hardware behind the port; nil where there is none, or the host tells of one node only.
    var deviceNode: Int? {
        switch driver {
        case .pci(let address): NUMA.node(ofPCI: address)
        case .afXDP(let interface): NUMA.node(ofInterface: interface)
        default: nil
        }
    }

    /// Pools that the port makes for itself, of ``MemoryPlan/ownPoolBuffers`` each.
    fileprivate var ownPoolCount: Int { if case .afXDP = driver { queueCount } else { 0 } }
}
