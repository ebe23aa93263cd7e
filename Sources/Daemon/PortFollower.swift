import Glibc
import Synchronization

/// A thread that lets ports follow what they depend on, five times a second.
@safe final class PortFollower: @unchecked Sendable {
    // @unchecked: `ports` belongs to the thread from start to `stop()`; the mutex guards the flag.
    private let ports: [any OpenPort]
    private let lcores: [CounterBlock]
    private let isStopped = Mutex(false)
    private var thread = pthread_t()

    static var intervalMicroseconds: UInt32 { 200_000 }

    init(_ ports: [any OpenPort], lcores: [CounterBlock]) {
        self.ports = ports
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
            for port in ports { port.follow(leave: leave) }
            usleep(Self.intervalMicroseconds)
        }
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
