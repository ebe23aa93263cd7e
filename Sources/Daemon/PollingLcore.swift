import CDPDK
import CLinux
import Dataplane
import DPDK

/// An ``Lcore`` running on a CPU, from launch to ``stop()``.
@safe final class PollingLcore {
    /// What the lcore's C entry gets. `stop` is written by control, read by the lcore.
    @safe private struct Run: ~Copyable {
        var lcore: Lcore
        let stop: UnsafeMutablePointer<Bool>
    }

    private let cpu: Int
    private let run: UnsafeMutablePointer<Run>
    private let stopFlag: UnsafeMutablePointer<Bool>
    private var isRunning = false

    init(_ lcore: consuming Lcore, onCPU cpu: Int) throws(DPDKError) {
        self.cpu = cpu
        unsafe run = .allocate(capacity: 1)
        unsafe stopFlag = .allocate(capacity: 1)
        unsafe stopFlag.initialize(to: false)
        unsafe run.initialize(to: Run(lcore: lcore, stop: stopFlag))
        try unsafe EAL.launch(onCPU: cpu, { argument in
            apus_sleep_precisely()
            let run = unsafe argument!.assumingMemoryBound(to: Run.self)
            unsafe run.pointee.lcore.run(until: run.pointee.stop)
            return 0
        }, run)
        isRunning = true
    }

    /// Ends the loop and waits for it.
    func stop() {
        guard isRunning else { return }
        isRunning = false
        unsafe apus_flag_store(stopFlag, true)
        EAL.wait(forCPU: cpu)
    }

    /// The packets the lcore held are back in their pools afterwards.
    deinit {
        stop()
        unsafe run.deinitialize(count: 1)
        unsafe run.deallocate()
        unsafe stopFlag.deallocate()
    }
}
