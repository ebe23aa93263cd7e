import Control
import DPDK

/// A configured port that is up. Its device goes with the object, which outlives the lcore that polls it.
protocol OpenPort: AnyObject {
    /// What programs see as ifindex.
    var index: UInt32 { get }
    var queue: PortQueue { get }
    /// For the start-up message.
    var summary: String { get }
}

@safe final class OpenTap: OpenPort {
    private let port: TapPort
    private let memory: UnsafeMutablePointer<TapQueue>

    /// What a tap's kernel may build: the largest buffer, less headroom, Ethernet header and two VLAN tags.
    static var superframeBytesMax: Int { PacketPool.largestRoom - TapQueue.headroom - 14 - 8 - 1 }

    init(interface: String, netns: String?, mtu: Int, small: PacketAllocator, large: PacketAllocator) throws(DPDKError) {
        port = try TapPort(interface: interface, netns: netns, mtu: mtu, superframeBytesMax: Self.superframeBytesMax)
        unsafe memory = .allocate(capacity: 1)
        unsafe memory.initialize(to: TapQueue(port, small: small, large: large))
    }

    deinit {
        unsafe memory.deinitialize(count: 1)
        unsafe memory.deallocate()
    }

    var index: UInt32 { port.index }
    var queue: PortQueue { unsafe PortQueue(memory) }
    var summary: String { "tap \(port.interface)" }
}

final class OpenVhost: OpenPort {
    private let port: VhostPort
    private let path: String
    let index: UInt32

    init(name: String, path: String, role: VhostPort.Role, index: UInt32, pool: borrowing PacketPool) throws(DPDKError) {
        port = try VhostPort(name: name, path: path, role: role, pool: pool)
        self.path = path
        self.index = index
    }

    var queue: PortQueue { PortQueue(port.queue) }
    var summary: String { "vhost-user \(path)" }
}
