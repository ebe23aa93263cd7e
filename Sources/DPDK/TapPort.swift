import CDPDK
import CLinux
import Glibc

/// The host's own network stack as a port: `/dev/net/tun` with a virtio header, so that unfinished
/// checksums and superframes cross into the kernel and out of it unharmed. (DPDK's net_tap has no such
/// header.) One frame a system call. The device vanishes with the value.
///
/// With several queues the kernel keeps a flow on the queue it last came from.
public struct TapPort: ~Copyable {
    public let interface: String
    /// The ifindex the device was born with, in the daemon's namespace.
    public let index: UInt32
    /// One a queue.
    let descriptors: [SharedDescriptor]

    /// - Parameters:
    ///   - netns: a name under /run/netns, or a path: the device is moved there.
    ///   - superframeBytesMax: the kernel is told to build none that is larger (IP header to end).
    public init(interface: String, netns: String?, mtu: Int, superframeBytesMax: Int, queueCount: Int = 1) throws(DPDKError) {
        var name = interface
        var owners: [SharedDescriptor] = []
        for _ in 0..<queueCount {
            let opened = try Self.open(name, isMultiQueue: queueCount > 1)
            name = opened.name
            owners.append(opened.descriptor)
        }
        var index: UInt32 = 0
        try Self.check(unsafe apus_link_index(name, &index), "find", name)
        for owner in owners { try Self.check(apus_tap_offload(owner.number, true, true, true), "switch on offloads", name) }
        try Self.check(apus_link_set_mtu(index, UInt32(mtu)), "set the MTU \(mtu)", name)
        try Self.check(apus_link_set_gso_max_size(index, UInt32(superframeBytesMax)), "limit superframes", name)
        if let netns { try Self.move(index, to: netns, name) }
        else { try Self.check(apus_link_set_up(index), "bring up", name) }
        descriptors = owners
        self.interface = name
        self.index = index
    }

    public var queueCount: Int { descriptors.count }

    private static func open(_ interface: String, isMultiQueue: Bool) throws(DPDKError) -> (descriptor: SharedDescriptor, name: String) {
        var chosen = [CChar](repeating: 0, count: 16)
        let fd = unsafe apus_tap_open(interface, &chosen, isMultiQueue)
        guard fd >= 0 else {
            throw DPDKError("cannot create the tap device '\(interface)' through /dev/net/tun", fd,
                            remedy: "run as root, load the tun module, and choose a name no other device has")
        }
        let name = String(decoding: chosen.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        return (SharedDescriptor(owning: fd), name)
    }

    private static func check(_ status: Int32, _ what: String, _ interface: String) throws(DPDKError) {
        guard status == 0 else { throw DPDKError("cannot \(what) on the tap device '\(interface)'", status) }
    }

    /// The device comes up in its new namespace, which only a thread inside it can do: this one, for a moment.
    private static func move(_ index: UInt32, to netns: String, _ interface: String) throws(DPDKError) {
        let path = netns.hasPrefix("/") ? netns : "/run/netns/\(netns)"
        let target = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard target >= 0 else {
            throw DPDKError("cannot open the network namespace '\(netns)'", errno, remedy: "make it with 'ip netns add \(netns)'")
        }
        defer { close(target) }
        let home = apus_current_netns()
        guard home >= 0 else { throw DPDKError("cannot find the daemon's own network namespace", home) }
        defer { close(home) }
        try check(apus_link_set_netns(index, target), "change the network namespace", interface)
        try check(apus_enter_netns(target), "enter the network namespace", interface)
        // Names, unlike numbers, never change on the way.
        var there: UInt32 = 0
        var status = unsafe apus_link_index(interface, &there)
        if status == 0 { status = apus_link_set_up(there) }
        let back = apus_enter_netns(home)
        precondition(back == 0, "the thread cannot return to its own network namespace")
        try check(status, "bring up", interface)
    }
}
