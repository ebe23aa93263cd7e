import CDPDK
import Glibc

/// A DPDK device as a port: devargs in, capabilities out. Which driver it is, DPDK says.
///
/// The device may come and go while lcores hold queues of the port: they go in only while it is attached. It
/// goes with the value; every lcore has ended before.
@safe public struct EthPort: ~Copyable {
    /// What to make and what to ask of it.
    public struct Recipe: Sendable {
        /// `net_KIND_NAME` of a virtual device, or the address of a PCI device that EAL has probed.
        public var device: String
        /// What stands behind the device's name in DPDK's `--vdev`.
        public var arguments: String
        public var queueCount: Int
        /// At most as many as there are lcores; 0 is as many as receive queues.
        public var transmitQueueCount: Int
        public var ringSize: Int
        /// 0: left as it is.
        public var mtuBytes: Int
        /// A virtio-user server takes a new connection only where it hears of the old one's end (DPDK 22.11).
        public var hearsLink: Bool
        /// Superframes may come: the receive buffers hold them whole.
        public var receivesSuperframes: Bool

        public init(device: String, arguments: String, queueCount: Int, transmitQueueCount: Int = 0, ringSize: Int = 1024,
                    mtuBytes: Int = 0, receivesSuperframes: Bool = false, hearsLink: Bool = false) {
            self.device = device
            self.arguments = arguments
            self.queueCount = queueCount
            self.transmitQueueCount = transmitQueueCount
            self.ringSize = ringSize
            self.mtuBytes = mtuBytes
            self.receivesSuperframes = receivesSuperframes
            self.hearsLink = hearsLink
        }

        var isPCI: Bool { !device.hasPrefix("net_") }
    }

    public let recipe: Recipe
    private var pool: OpaquePointer
    private var node: Int?
    private let shared: UnsafeMutablePointer<apus_eth_port>
    private var port: UInt16?
    /// Known once it was attached for the first time.
    public private(set) var driver: EthQueue.Driver
    /// The kernel device behind it; 0 where there is none.
    public private(set) var interfaceIndex: UInt32 = 0
    public private(set) var queueCount: Int
    private var transmitQueueCount: Int
    private var offloads: UInt64 = 0

    /// - Parameter pool: buffers for what arrives; outlives the port.
    public init(_ recipe: Recipe, pool: borrowing PacketPool) {
        precondition(recipe.queueCount <= Int(APUS_QUEUES_MAX), "\(recipe.queueCount) queues")
        self.recipe = recipe
        unsafe self.pool = pool.mempool
        node = pool.node
        // What it will be, should its peer have to come first.
        driver = recipe.device.hasPrefix("net_virtio_user") ? .virtio : .device
        queueCount = recipe.queueCount
        transmitQueueCount = recipe.queueCount
        unsafe shared = .allocate(capacity: 1)
        unsafe shared.initialize(to: apus_eth_port())
    }

    deinit {
        if let port { Self.close(port, recipe) }
        unsafe shared.deallocate()
    }

    public var isAttached: Bool { port != nil }

    /// False while the device says that nobody is at its other end.
    public var hasPeer: Bool { port.map { apus_eth_link_is_up($0) } ?? false }

    // MARK: Coming and going

    /// Makes the device and lets lcores in.
    public mutating func attach() throws(DPDKError) {
        precondition(port == nil, "the device is there already")
        var port: UInt16 = 0
        let created = recipe.isPCI ? unsafe apus_eth_port_by_name(recipe.device, &port)
            : unsafe apus_vdev_create(recipe.device, recipe.arguments, &port)
        guard created == 0 else { throw DPDKError("DPDK cannot make the device \(recipe.device),\(recipe.arguments)", created) }
        var receive = apus_receive_checksum_offloads | apus_receive_scatter_offload
        if recipe.receivesSuperframes { receive |= apus_receive_lro_offload }
        var setup = unsafe apus_eth_setup(
            receive_offloads: receive,
            transmit_offloads: apus_transmit_checksum_offloads | apus_transmit_tso_offload | apus_transmit_multi_segment_offload
                | apus_transmit_lock_free_offload,
            receive_queues: UInt16(recipe.queueCount), transmit_queues: UInt16(recipe.transmitQueueCount),
            ring_size: UInt16(recipe.ringSize), mtu: UInt16(recipe.mtuBytes),
            hears_link: recipe.hearsLink, socket: socketNumber(node), pool: pool,
            interface_index: 0, driver: nil)
        let started = unsafe apus_eth_start(port, &setup)
        guard started == 0 else {
            Self.close(port, recipe)
            throw DPDKError("cannot start the device \(recipe.device)", started)
        }
        let name = unsafe setup.driver.map { unsafe String(cString: $0) } ?? ""
        driver = EthQueue.Driver(named: name)
        interfaceIndex = unsafe setup.interface_index
        queueCount = unsafe Int(setup.receive_queues)
        transmitQueueCount = unsafe Int(setup.transmit_queues)
        offloads = unsafe setup.transmit_offloads
        self.port = port
        unsafe apus_eth_open(shared, port, setup.transmit_offloads)
    }

    /// Takes buffers from another pool from the next ``attach()`` on.
    public mutating func use(_ pool: borrowing PacketPool) {
        unsafe self.pool = pool.mempool
        node = pool.node
    }

    /// Keeps lcores out from now on. Each has left when it has begun another round.
    public func shut() { unsafe apus_eth_shut(shared) }

    /// Removes the device. The caller called ``shut()`` and saw every lcore leave.
    public mutating func detach() {
        guard let port else { return }
        self.port = nil
        Self.close(port, recipe)
    }

    private static func close(_ port: UInt16, _ recipe: Recipe) {
        _ = apus_eth_stop_and_close(port)
        unsafe _ = apus_device_remove(recipe.device)
    }

    // MARK: Queues

    /// - Parameters:
    ///   - receive: below ``queueCount``.
    ///   - lcore: number of the lcore that uses it, from 0.
    ///   - lcoreCount: how many there are.
    public func queue(receive: Int, lcore: Int, of lcoreCount: Int) -> EthQueue {
        let count = max(transmitQueueCount, 1)
        return unsafe EthQueue(shared: shared, driver: driver, receiveQueue: UInt16(receive), transmitQueue: UInt16(lcore % count),
                               isShared: lcoreCount > count && offloads & apus_transmit_lock_free_offload == 0,
                               isLinearOnly: offloads & apus_transmit_multi_segment_offload == 0 && driver == .device,
                               lengthMax: recipe.mtuBytes == 0 ? Int.max : recipe.mtuBytes + 14 + 8)
    }
}

extension EAL {
    /// Vhost-user peers map this process's packet memory: said before anybody meets silence.
    /// - Throws: where it cannot be mapped.
    public static func checkSharedMemory() throws(DPDKError) { try checkSharedMemory(regions: Int(apus_memory_regions())) }

    /// - Parameter regions: pieces of packet memory; negative where it cannot be mapped.
    static func checkSharedMemory(regions: Int) throws(DPDKError) {
        guard regions >= 0 else {
            throw DPDKError("packet memory cannot be shared with a virtio-user port's peer; say hugepages = on, or run a kernel with memfd_create")
        }
        // VHOST_MEMORY_MAX_NREGIONS of the vhost-user protocol.
        guard regions <= 8 else {
            throw DPDKError("packet memory lies in \(regions) pieces and a virtio-user port's peer takes 8; lower [apus] memory, or reserve larger hugepages")
        }
    }
}
