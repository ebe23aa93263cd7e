import Control
import DPDK
import Glibc
import Logging
import Synchronization

/// A port with a DPDK device behind it.
final class OpenEth: OpenPort {
    /// What has to be there before the device can be made.
    enum Condition {
        /// Nothing: the driver itself waits for its peer.
        case none
        /// Somebody who listens on this socket: the driver connects once, and says when the peer has gone.
        case listener(String)
        /// A device of the kernel.
        case interface(String)
    }

    /// `port` and `pool` are the follower's from the start of the lcores to their end; others ask under it.
    private let lock = Mutex(())
    private var port: EthPort
    /// The AF_XDP driver leaves buffers behind in the kernel's rings when it closes (DPDK 22.11), so that each device
    /// begins with a new pool, and what is missing from it means nothing.
    private let makePool: (() throws(DPDKError) -> OwnPool)?
    private var pool: OwnPool?
    private let condition: Condition
    private let logger: Logger
    private let name: String
    let index: UInt32
    let summary: String

    /// - Parameters:
    ///   - index: what programs see where the kernel has no device of its own behind the port.
    ///   - shared: buffers for what arrives, unless the port has a pool of its own, which `makePool` makes.
    init(name: String, _ recipe: EthPort.Recipe, summary: String, index: UInt32, shared: borrowing PacketPool,
         pool makePool: (() throws(DPDKError) -> OwnPool)? = nil, condition: Condition = .none, logger: Logger) throws(DPDKError) {
        self.name = name
        self.summary = summary
        self.condition = condition
        self.logger = logger
        self.makePool = makePool
        pool = try makePool?()
        port = if let pool { EthPort(recipe, pool: pool.pool) } else { EthPort(recipe, pool: shared) }
        if case .listener(let path) = condition {
            if StaleSocket.isListenedOn(path) { try port.attach() }
            else { logger.info("port \(name): nobody listens on \(path) yet") }
        } else {
            try port.attach()
        }
        self.index = port.interfaceIndex != 0 ? port.interfaceIndex : index
    }

    var queueCount: Int { port.queueCount }
    var hasPeer: Bool { lock.withLock { _ in port.hasPeer } }

    func queue(_ number: Int, lcore: Int, of lcoreCount: Int) -> PortQueue {
        PortQueue(port.queue(receive: number % max(port.queueCount, 1), lcore: lcore, of: lcoreCount))
    }

    func close() { port.detach() }

    func follow(leave: () -> Void) { lock.withLock { _ in followOwned(leave: leave) } }

    private func followOwned(leave: () -> Void) {
        if port.isAttached, isGone {
            port.shut()
            leave()
            port.detach()
            logger.warning("port \(name): \(summary) has gone")
        } else if !port.isAttached, isReady {
            do {
                // The old one's name is free before the new one takes it.
                pool = nil
                if let makePool {
                    let fresh = try makePool()
                    port.use(fresh.pool)
                    pool = fresh
                }
                try port.attach()
                logger.info("port \(name): \(summary) is there")
            } catch {
                logger.warning("port \(name): \(error)")
            }
        }
    }

    private var isGone: Bool {
        switch condition {
        case .none: false
        case .listener: !port.hasPeer
        case .interface(let name): if_nametoindex(name) != port.interfaceIndex
        }
    }

    private var isReady: Bool {
        switch condition {
        case .none: true
        case .listener(let path): StaleSocket.isListenedOn(path)
        case .interface(let name): if_nametoindex(name) != 0
        }
    }
}

/// A pool that a port has for itself.
final class OwnPool {
    let pool: PacketPool

    init(_ pool: consuming PacketPool) { self.pool = pool }
}
