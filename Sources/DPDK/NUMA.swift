import CLinux

/// Which NUMA node things are near to. nil throughout: the host has one node, or nobody tells.
public enum NUMA {
    /// The node whose memory the CPU reaches soonest.
    public static func node(ofCPU cpu: Int) -> Int? { nonNegative(Int(apus_numa_node_of_cpu(Int32(cpu)))) }

    public static func node(ofPCI address: String) -> Int? { device("/sys/bus/pci/devices/\(address)") }

    /// Of the hardware behind a kernel device.
    public static func node(ofInterface name: String) -> Int? { device("/sys/class/net/\(name)/device") }

    private static func device(_ path: String) -> Int? { SystemNumber.read("\(path)/numa_node").flatMap(nonNegative) }

    private static func nonNegative(_ node: Int) -> Int? { node < 0 ? nil : node }
}
