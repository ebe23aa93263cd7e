import Control
import DPDK

/// Says when a port's packets cross between NUMA nodes: once for each node that its other end is found on.
struct RemotePolling {
    let name: String
    /// The port's own lcores, and the nodes they are on.
    private let polling: [(cpu: Int, node: Int?)]
    /// All that the daemon may poll with.
    private let lcores: [Int]
    private var lastNode: Int?

    init(_ section: PortConfiguration, lcores: [Int]) {
        name = section.name
        polling = section.lcores.map { ($0, NUMA.node(ofCPU: $0)) }
        self.lcores = lcores
    }

    /// - Parameter node: where the port's device or guest is now.
    /// - Returns: the warning, where there is a new one.
    mutating func warning(_ node: Int?) -> String? {
        guard node != lastNode else { return nil }
        lastNode = node
        guard let node else { return nil }
        let remote = polling.filter { $0.node != nil && $0.node != node }.map(\.cpu)
        guard !remote.isEmpty else { return nil }
        let near = lcores.filter { NUMA.node(ofCPU: $0) == node }
        let remedy = near.isEmpty ? "add a CPU of that node to [apus] lcores and name it in [port \(name)] lcores"
            : "say 'lcores = \(CPUList.text(near))' in [port \(name)]"
        return "port \(name): its other end is on NUMA node \(node) and CPU \(CPUList.text(remote)), which polls it, is not, so that every packet crosses between nodes; \(remedy)"
    }
}
