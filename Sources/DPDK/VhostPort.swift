import CDPDK

/// A vhost-user socket as a port: the guest behind it may come and go while lcores hold queues of it.
///
/// The socket goes with the value; every lcore has ended before.
@safe public struct VhostPort: ~Copyable {
    private let shared: UnsafeMutablePointer<apus_vhost_port>
    public let queueCount: Int

    /// - Parameters:
    ///   - connects: to somebody who listens on the path, as soon as there is somebody; else the port listens itself.
    ///   - pool: buffers for what arrives; outlives the port.
    public init(_ path: String, connects: Bool, queueCount: Int, pool: borrowing PacketPool) throws(DPDKError) {
        precondition(queueCount <= Int(APUS_QUEUES_MAX), "\(queueCount) queues")
        self.queueCount = queueCount
        unsafe shared = try Self.open(path, connects, pool.mempool)
    }

    private static func open(_ path: String, _ connects: Bool, _ pool: OpaquePointer) throws(DPDKError) -> UnsafeMutablePointer<apus_vhost_port> {
        let shared = UnsafeMutablePointer<apus_vhost_port>.allocate(capacity: 1)
        unsafe shared.initialize(to: apus_vhost_port())
        guard unsafe apus_vhost_open(shared, path, connects, pool) else {
            unsafe shared.deallocate()
            throw DPDKError("cannot open the vhost-user socket '\(path)'; check that its directory exists and is writable")
        }
        return unsafe shared
    }

    deinit {
        unsafe apus_vhost_close(shared)
        unsafe shared.deallocate()
    }

    public var hasGuest: Bool { unsafe apus_vhost_has_guest(shared) }

    /// The NUMA node of the guest's memory, which packets are copied from and to; nil: there is no guest, or nobody tells.
    public var guestNode: Int? {
        let node = unsafe apus_vhost_node(shared)
        return node < 0 ? nil : Int(node)
    }

    /// Whether the guest shares the memory at this address.
    public func shares(_ address: UInt64) -> Bool { unsafe apus_vhost_shares(shared, address) }

    /// - Parameters:
    ///   - receive: below ``queueCount``.
    ///   - lcore: number of the lcore that uses it, from 0.
    ///   - lcoreCount: how many there are.
    public func queue(receive: Int, lcore: Int, of lcoreCount: Int) -> VhostQueue {
        // A guest enables as many queues as it likes, so that any lcore may have to move to the first.
        unsafe VhostQueue(shared: shared, receiveQueue: UInt16(receive), transmitQueue: UInt16(lcore % max(queueCount, 1)),
                          isShared: lcoreCount > 1)
    }
}
