import DPDK
import Glibc
import Logging
import Synchronization

/// A thread that lets ports follow what they depend on, five times a second.
@safe final class PortFollower: @unchecked Sendable {
    // @unchecked: `ports`, `remote` and `lostPages` belong to the thread from start to `stop()`; the mutex guards the flag.
    private let ports: [any OpenPort]
    private var remote: [RemotePolling]
    private var lostPages: UInt64 = 0
    private let logger: Logger
    private let lcores: [CounterBlock]
    private let isStopped = Mutex(false)
    private var thread = pthread_t()

    static var intervalMicroseconds: UInt32 { 200_000 }

    init(_ ports: [(any OpenPort, RemotePolling)], lcores: [CounterBlock], logger: Logger) {
        self.ports = ports.map(\.0)
        remote = ports.map(\.1)
        self.logger = logger
        self.lcores = lcores
        let box = unsafe Unmanaged.passRetained(self)
        let status = unsafe pthread_create(&thread, nil, { argument in
            unsafe Unmanaged<PortFollower>.fromOpaque(argument!).takeRetainedValue().run()
            return nil
        }, box.toOpaque())
        precondition(status == 0, "no thread to follow ports with")
    }

    private func run() {
        while !isStopped.withLock({ $0 }) {
            for (number, port) in ports.enumerated() {
                port.follow(leave: leave)
                if let warning = remote[number].warning(port.node) { logger.warning("\(warning)") }
            }
            reportLostMemory()
            usleep(Self.intervalMicroseconds)
        }
    }

    private func reportLostMemory() {
        let (pages, address) = LostMemory.found
        guard pages > lostPages else { return }
        let names = remote.indices.filter { ports[$0].shares(address) }.map { "port \(remote[$0].name)" }
        logger.error("""
            \(names.first ?? "a port whose peer has gone since"): its peer cut memory short that it shares, \(pages - lostPages) more \
            page\(pages - lostPages == 1 ? "" : "s") that the daemon used; they read as zeros, and the port carries nothing to \
            rely on until the peer is started anew
            """)
        lostPages = pages
    }

    /// Every lcore is in a later round than now: what it looked up before it no longer uses.
    private func leave() {
        let before = lcores.map { $0.own.lcore.value(.polls) }
        for (block, rounds) in zip(lcores, before) {
            while block.own.lcore.value(.polls) < rounds + 2, !isStopped.withLock({ $0 }) { usleep(100) }
        }
    }

    /// The lcores still run.
    func stop() {
        isStopped.withLock { $0 = true }
        _ = pthread_join(thread, nil)
    }
}
