import Control
import DPDK
import Foundation
import Logging
import Synchronization

/// A port with a DPDK device behind it.
final class OpenEth: OpenPort, @unchecked Sendable {
    // @unchecked: what changes is under `lock`, or atomic.
    /// What has to be there before the device can be made.
    enum Condition {
        /// Nothing: the driver itself waits for its peer.
        case none
        /// Somebody who listens on this socket: the driver connects once, and says when the peer has gone.
        case listener(String)
        /// Somebody who connects to this socket: the driver waits in the middle of making the device (DPDK 22.11), so a
        /// thread of its own makes it.
        case caller(String)
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
    private let deviceNode: Int?
    let index: UInt32
    let queueCount: Int
    let summary: String
    private let isWaiting = Mutex(false)
    private let isClosing = Mutex(false)

    /// - Parameters:
    ///   - index: what programs see where the kernel has no device of its own behind the port.
    ///   - node: of the hardware, where there is some.
    ///   - shared: buffers for what arrives, unless the port has a pool of its own, which `makePool` makes.
    init(name: String, _ recipe: EthPort.Recipe, summary: String, index: UInt32, node: Int? = nil, shared: borrowing PacketPool,
         pool makePool: (() throws(DPDKError) -> OwnPool)? = nil, condition: Condition = .none, logger: Logger) throws(DPDKError) {
        self.name = name
        self.summary = summary
        self.condition = condition
        self.logger = logger
        self.makePool = makePool
        deviceNode = node
        pool = try makePool?()
        port = if let pool { EthPort(recipe, pool: pool.pool) } else { EthPort(recipe, pool: shared) }
        if case .listener(let path) = condition {
            if StaleSocket.isListenedOn(path) { try port.attach() }
            else { logger.info("port \(name): nobody listens on \(path) yet") }
        } else if case .caller(let path) = condition {
            logger.info("port \(name): waits for a connection to \(path)")
        } else {
            try port.attach()
        }
        queueCount = port.queueCount
        self.index = port.interfaceIndex != 0 ? port.interfaceIndex : index
    }

    /// False also while the device is being made.
    var hasPeer: Bool { lock.withLockIfAvailable { _ in port.hasPeer } ?? false }

    var node: Int? { deviceNode }

    func queue(_ number: Int, lcore: Int, of lcoreCount: Int) -> PortQueue {
        PortQueue(port.queue(receive: number % max(port.queueCount, 1), lcore: lcore, of: lcoreCount))
    }

    func close() {
        isClosing.withLock { $0 = true }
        // A connection ends the wait, and its end the making. It may come before the wait has begun.
        if case .caller(let path) = condition {
            while isWaiting.withLock({ $0 }) {
                _ = StaleSocket.isListenedOn(path)
                usleep(10_000)
            }
        }
        lock.withLock { _ in port.detach() }
        if case .caller(let path) = condition { unsafe _ = unlink(path) }
    }

    func follow(leave: () -> Void) {
        if case .caller(let path) = condition { return wait(on: path) }
        lock.withLock { _ in followOwned(leave: leave) }
    }

    private func wait(on path: String) {
        let isNew = isWaiting.withLock { isWaiting in
            guard !isWaiting, lock.withLockIfAvailable({ _ in port.isAttached }) == false else { return false }
            isWaiting = true
            return true
        }
        guard isNew else { return }
        Thread.detachNewThread {
            self.lock.withLock { _ in
                do {
                    // What the attempt before left; whether anybody else has the path was asked at the start.
                    unsafe _ = unlink(path)
                    try self.port.attach()
                    self.logger.info("port \(self.name): \(self.summary) is there")
                } catch {
                    if !self.isClosing.withLock({ $0 }) { self.logger.warning("port \(self.name): \(error)") }
                }
            }
            self.isWaiting.withLock { $0 = false }
        }
    }

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
        case .none, .caller: false
        case .listener: !port.hasPeer
        case .interface(let name): unsafe if_nametoindex(name) != port.interfaceIndex
        }
    }

    private var isReady: Bool {
        switch condition {
        case .none, .caller: true
        case .listener(let path): StaleSocket.isListenedOn(path)
        case .interface(let name): unsafe if_nametoindex(name) != 0
        }
    }
}

/// A pool that a port has for itself.
final class OwnPool {
    let pool: PacketPool

    init(_ pool: consuming PacketPool) { self.pool = pool }
}
