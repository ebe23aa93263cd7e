import DPDK

/// A vhost-user port: the library itself follows the guest at its other end.
final class OpenVhost: OpenPort {
    private var port: VhostPort?
    let index: UInt32
    let queueCount: Int
    let summary: String

    init(_ path: String, connects: Bool, queueCount: Int, index: UInt32, pool: borrowing PacketPool) throws(DPDKError) {
        port = try VhostPort(path, connects: connects, queueCount: queueCount, pool: pool)
        summary = "vhost-user \(path)"
        self.index = index
        self.queueCount = queueCount
    }

    var hasPeer: Bool { port?.hasGuest ?? false }

    var node: Int? { port?.guestNode ?? nil }

    func shares(_ address: UInt64) -> Bool { port?.shares(address) ?? false }

    func queue(_ number: Int, lcore: Int, of lcoreCount: Int) -> PortQueue {
        PortQueue(port!.queue(receive: number % queueCount, lcore: lcore, of: lcoreCount))
    }

    func close() { port = nil }
}
