import CDPDK
import CLinux
import Glibc

/// The host's own network stack as a port: `/dev/net/tun` with a virtio header, so that unfinished
/// checksums and superframes cross into the kernel and out of it unharmed. (DPDK's net_tap has no such
/// header.) One frame a system call. Unless it is persistent, the device vanishes with the value.
///
/// With several queues the kernel keeps a flow on the queue it last came from.
public struct TapPort: ~Copyable {
    public struct Settings {
        public var interface: String
        /// A name under /run/netns, or a path: the device is moved there.
        public var netns: String?
        public var mtu: Int
        public var queueCount: Int
        /// The device, with its addresses, stays when the daemon ends, and is taken up again by the next one.
        public var isPersistent: Bool
        public var offers: Offers

        public init(interface: String, netns: String? = nil, mtu: Int = 1500, queueCount: Int = 1, isPersistent: Bool = false,
                    offers: Offers = .superframes) {
            self.interface = interface
            self.netns = netns
            self.mtu = mtu
            self.queueCount = queueCount
            self.isPersistent = isPersistent
            self.offers = offers
        }
    }

    /// What the kernel may leave to whoever gets its packets.
    public enum Offers: Sendable { case nothing, checksums, superframes }

    public let interface: String
    /// The device's ifindex in the daemon's namespace; of one that is found in another, its index there.
    public let index: UInt32
    /// One a queue.
    let descriptors: [SharedDescriptor]

    /// What a tap's kernel may build, IP header to end: the largest buffer, less headroom, Ethernet header and two VLAN tags.
    public static var superframeBytesMax: Int { PacketPool.largestRoom - TapQueue.headroom - 14 - 8 - 1 }

    public init(_ settings: Settings) throws(DPDKError) {
        let made: Made
        if let name = settings.netns {
            let netns = try NetworkNamespace(name)
            // A persistent device is where an earlier run moved it to.
            if try netns.inside({ Self.index(of: settings.interface) != nil }) {
                made = try netns.inside { () throws(DPDKError) in try Self.make(settings, isMoved: false) }
            } else {
                made = try Self.make(settings, isMoved: true)
                try Self.check(apus_link_set_netns(made.index, netns.number), "change the network namespace", made.name)
                // Names, unlike numbers, never change on the way.
                let status = try netns.inside { Self.index(of: made.name).map(apus_link_set_up) ?? -ENODEV }
                try Self.check(status, "bring up", made.name)
            }
        } else {
            made = try Self.make(settings, isMoved: false)
        }
        descriptors = made.descriptors
        interface = made.name
        index = made.index
    }

    public var queueCount: Int { descriptors.count }

    private struct Made {
        let name: String
        let index: UInt32
        let descriptors: [SharedDescriptor]
    }

    /// Opens the device in the thread's namespace and sets it up.
    private static func make(_ settings: Settings, isMoved: Bool) throws(DPDKError) -> Made {
        var name = settings.interface
        var descriptors: [SharedDescriptor] = []
        for _ in 0..<settings.queueCount {
            let opened = try open(name, isMultiQueue: settings.queueCount > 1)
            name = opened.name
            descriptors.append(opened.descriptor)
        }
        guard let index = index(of: name) else { throw DPDKError("cannot find the tap device '\(name)'", ENODEV) }
        let (checksums, superframes) = (settings.offers != .nothing, settings.offers == .superframes)
        for descriptor in descriptors {
            try check(apus_tap_offload(descriptor.number, checksums, superframes), "switch offloads", name)
            try check(apus_tap_persist(descriptor.number, settings.isPersistent), "make it persistent or not", name)
        }
        try check(apus_link_set_mtu(index, UInt32(settings.mtu)), "set the MTU \(settings.mtu)", name)
        try check(apus_link_set_gso_max_size(index, UInt32(superframeBytesMax)), "limit superframes", name)
        if !isMoved { try check(apus_link_set_up(index), "bring up", name) }
        return Made(name: name, index: index, descriptors: descriptors)
    }

    private static func index(of interface: String) -> UInt32? {
        var index: UInt32 = 0
        return unsafe apus_link_index(interface, &index) == 0 ? index : nil
    }

    private static func open(_ interface: String, isMultiQueue: Bool) throws(DPDKError) -> (descriptor: SharedDescriptor, name: String) {
        var chosen = [CChar](repeating: 0, count: 16)
        let fd = unsafe apus_tap_open(interface, &chosen, isMultiQueue)
        guard fd >= 0 else {
            throw DPDKError("cannot create the tap device '\(interface)' through /dev/net/tun", fd, remedy: remedy(fd))
        }
        let name = String(decoding: chosen.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        return (SharedDescriptor(owning: fd), name)
    }

    private static func remedy(_ status: Int32) -> String {
        switch -status {
        case ENOENT, ENODEV, ENXIO: "load the tun module ('modprobe tun')"
        case EACCES, EPERM: "run as root, or give the daemon CAP_NET_ADMIN and /dev/net/tun"
        case EBUSY: "choose a name that no other device has, or end who holds it"
        case EINVAL: "choose a name that no other device has, and the number of queues that a persistent one was made with"
        default: "run as root, load the tun module, and choose a name no other device has"
        }
    }

    private static func check(_ status: Int32, _ what: String, _ interface: String) throws(DPDKError) {
        guard status == 0 else { throw DPDKError("cannot \(what) on the tap device '\(interface)'", status) }
    }
}
