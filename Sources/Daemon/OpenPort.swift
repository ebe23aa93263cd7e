import Control
import DPDK

/// A configured port that is up. Its device goes with the object, which outlives the lcores that poll it.
protocol OpenPort: AnyObject {
    /// What programs see as ifindex.
    var index: UInt32 { get }
    /// Receive queues.
    var queueCount: Int { get }
    /// For the start-up message.
    var summary: String { get }
    /// Somebody is at the other end.
    var hasPeer: Bool { get }
    /// The NUMA node of its device or its guest; nil: there is none, or nobody tells.
    var node: Int? { get }
    /// Whether its peer shares the memory at this address.
    func shares(_ address: UInt64) -> Bool
    /// What the lcore `lcore` of `lcoreCount` polls as receive queue `number`, and sends by. Before the lcores start.
    func queue(_ number: Int, lcore: Int, of lcoreCount: Int) -> PortQueue
    /// Closes the device, so that every buffer is back.
    func close()
    /// Follows the coming and going of what the port depends on. Control calls it a few times a second.
    /// - Parameter leave: returns when every lcore has left what it was doing.
    func follow(leave: () -> Void)
}

extension OpenPort {
    var hasPeer: Bool { true }
    var node: Int? { nil }
    func shares(_ address: UInt64) -> Bool { false }
    func follow(leave: () -> Void) {}
}

@safe final class OpenTap: OpenPort {
    private var port: TapPort?
    /// By lcore.
    private let pools: [NodePools]
    private var memory: [UnsafeMutablePointer<TapQueue>] = unsafe []
    let index: UInt32
    let queueCount: Int
    let summary: String

    init(_ settings: TapPort.Settings, pools: [NodePools]) throws(DPDKError) {
        let port = try TapPort(settings)
        index = port.index
        summary = "tap \(port.interface)"
        queueCount = settings.queueCount
        self.pools = pools
        self.port = consume port
    }

    deinit { close() }

    /// A value of its own for each lcore: it has room for one frame on its way out, and one on its way in.
    func queue(_ number: Int, lcore: Int, of lcoreCount: Int) -> PortQueue {
        let queue = UnsafeMutablePointer<TapQueue>.allocate(capacity: 1)
        unsafe queue.initialize(to: TapQueue(port!, number: number % queueCount, small: pools[lcore].small.allocator, large: pools[lcore].large.allocator))
        unsafe memory.append(queue)
        return unsafe PortQueue(queue)
    }

    func close() {
        for unsafe queue in unsafe memory { unsafe queue.deinitialize(count: 1).deallocate() }
        unsafe memory.removeAll()
        port = nil
    }
}
