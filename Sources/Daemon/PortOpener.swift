import Control
import DPDK
import Glibc
import Logging

/// Makes the ports that a configuration names, each as its driver wants it.
struct PortOpener {
    private let plan: MemoryPlan
    /// One a share of the plan.
    private let pools: [NodePools]
    /// Those that may send.
    private let lcores: [Int]
    private let logger: Logger
    /// Next index of a port that is no device of the kernel.
    private var nextIndex: UInt32 = 65_536

    init(plan: MemoryPlan, pools: [NodePools], lcores: [Int], logger: Logger) {
        self.plan = plan
        self.pools = pools
        self.lcores = lcores
        self.logger = logger
    }

    /// What an lcore makes packets from.
    func pools(ofCPU cpu: Int) -> NodePools { pools[plan.home(ofCPU: cpu)] }

    private func pools(of section: PortConfiguration) -> NodePools { pools[plan.home(of: section)] }

    mutating func open(_ section: PortConfiguration) throws(DPDKError) -> any OpenPort {
        let port = try make(section)
        if port.index == nextIndex { nextIndex += 1 }
        logger.info("port \(section.name): \(port.summary), index \(port.index), \(port.queueCount) queue\(port.queueCount == 1 ? "" : "s"), deliver \(section.deliver.rawValue)")
        return port
    }

    private func make(_ section: PortConfiguration) throws(DPDKError) -> any OpenPort {
        switch section.driver {
        case .tap(let interface, let netns, let isPersistent, let offloads):
            let settings = TapPort.Settings(interface: interface, netns: netns, mtu: section.mtuBytes, queueCount: section.queueCount,
                                            isPersistent: isPersistent, offers: TapPort.Offers(offloads))
            return try OpenTap(settings, pools: lcores.map(pools(ofCPU:)))
        case .vhostUser(let path, let role): return try vhostUser(section, path, role)
        case .virtioUser(let path, let role, let ring, let isMergeable):
            return try virtioUser(section, path, role, ring, isMergeable: isMergeable)
        case .afXDP(let interface): return try afXDP(section, interface)
        case .pcap(let receive, let transmit): return try pcap(section, receive, transmit)
        case .pci(let address): return try device(section, address, "", summary: "pci \(address)")
        case .null: return try device(section, "net_null_\(section.name)", "no-rx=1", summary: "null")
        case .vdev(let devargs):
            let parts = devargs.split(separator: ",", maxSplits: 1).map(String.init)
            return try device(section, parts[0], parts.count > 1 ? parts[1] : "", summary: "vdev \(devargs)")
        }
    }

    // MARK: Sockets

    private func vhostUser(_ section: PortConfiguration, _ path: String, _ role: PortConfiguration.VhostRole) throws(DPDKError) -> OpenVhost {
        if role == .server { try StaleSocket.remove(path) }
        return try OpenVhost(path, connects: role == .client, queueCount: section.queueCount, index: nextIndex, pool: pools(of: section).large)
    }

    private func virtioUser(_ section: PortConfiguration, _ path: String, _ role: PortConfiguration.VhostRole,
                            _ ring: PortConfiguration.Ring, isMergeable: Bool) throws(DPDKError) -> OpenEth {
        try EAL.checkSharedMemory()
        if role == .server { try StaleSocket.remove(path) }
        // Its receive ring is always full of buffers that hold a superframe each: at most a quarter of them all.
        let large = pools(of: section).large.capacity
        let share = large / 4 / section.queueCount
        guard share >= 32 else {
            throw DPDKError("port \(section.name): \(section.queueCount) queues of a virtio-user port need \(section.queueCount * 128) large buffers and there are \(large); raise [apus] memory")
        }
        let ringSize = share >= 256 ? 256 : share >= 128 ? 128 : share >= 64 ? 64 : 32
        let arguments = "path=\(path),queues=\(section.queueCount),queue_size=\(ringSize),server=\(role == .server ? 1 : 0),"
            + "packed_vq=\(ring == .packed ? 1 : 0),mrg_rxbuf=\(isMergeable ? 1 : 0)"
        let recipe = EthPort.Recipe(device: "net_virtio_user_\(section.name)", arguments: arguments, queueCount: section.queueCount,
                                    ringSize: ringSize, receivesSuperframes: true, hearsLink: role == .server)
        return try OpenEth(name: section.name, recipe, summary: "virtio-user \(path)", index: nextIndex, shared: pools(of: section).large,
                           condition: role == .client ? .listener(path) : .caller(path), logger: logger)
    }

    // MARK: Devices of the kernel

    private func afXDP(_ section: PortConfiguration, _ interface: String) throws(DPDKError) -> OpenEth {
        guard unsafe if_nametoindex(interface) != 0 else {
            throw DPDKError("port \(section.name): there is no device '\(interface)' in the daemon's network namespace; 'ip link' lists them")
        }
        // The kernel maps the whole pool and takes chunks of at most a page, so the port has one of its own.
        let recipe = EthPort.Recipe(device: "net_af_xdp_\(section.name)",
                                    arguments: "iface=\(interface),start_queue=0,queue_count=\(section.queueCount)",
                                    queueCount: section.queueCount, transmitQueueCount: section.queueCount, mtuBytes: section.mtuBytes)
        let node = pools(of: section).small.node
        return try OpenEth(name: section.name, recipe, summary: "af-xdp \(interface)", index: nextIndex, node: section.deviceNode, shared: pools(of: section).small,
                           pool: { () throws(DPDKError) -> OwnPool in
                               OwnPool(try PacketPool(name: "xsk_\(section.name)".prefixed(25), capacity: MemoryPlan.ownPoolBuffers * section.queueCount,
                                                      room: TapQueue.smallRoom, cache: 256, node: node))
                           }, condition: .interface(interface), logger: logger)
    }

    private func pcap(_ section: PortConfiguration, _ receive: PortConfiguration.Capture?,
                      _ transmit: PortConfiguration.Capture?) throws(DPDKError) -> OpenEth {
        var words: [String] = []
        if case .interface(let name)? = receive, receive == transmit {
            words = ["iface=\(name)"]
        } else {
            switch receive {
            case .file(let path): words.append("rx_pcap=\(path)")
            // The kernel would hand back what this process sends.
            case .interface(let name): words.append("rx_iface_in=\(name)")
            case nil: break
            }
            switch transmit {
            case .file(let path): words.append("tx_pcap=\(path)")
            case .interface(let name): words.append("tx_iface=\(name)")
            case nil: break
            }
        }
        return try device(section, "net_pcap_\(section.name)", words.joined(separator: ","), summary: "pcap \(words.joined(separator: " "))")
    }

    private func device(_ section: PortConfiguration, _ name: String, _ arguments: String, summary: String) throws(DPDKError) -> OpenEth {
        let recipe = EthPort.Recipe(device: name, arguments: arguments, queueCount: section.queueCount,
                                    transmitQueueCount: max(lcores.count, section.queueCount), mtuBytes: section.mtuBytes)
        return try OpenEth(name: section.name, recipe, summary: summary, index: nextIndex, node: section.deviceNode, shared: pools(of: section).small, logger: logger)
    }
}

extension String {
    /// DPDK's names of pools have at most 25 bytes.
    fileprivate func prefixed(_ count: Int) -> String { String(prefix(count)) }
}

extension TapPort.Offers {
    fileprivate init(_ configured: PortConfiguration.Offloads) {
        self = switch configured {
        case .on: .superframes
        case .checksum: .checksums
        case .off: .nothing
        }
    }
}
