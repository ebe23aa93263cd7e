public import Control
import DPDK
public import Logging

/// The daemon from start to end.
public enum Service {
    /// Forwards until `wait` returns.
    /// - Throws: what could not be started, one sentence.
    /// - Returns: packet buffers that did not come back; 0 unless there is a bug to report.
    public static func run(_ configuration: Configuration, availableCPUs: Set<Int>, logger: Logger,
                           until wait: () -> Void) throws -> Int {
        // After the forwarder is gone, pools and ports included, on every way out.
        defer { EAL.stop() }
        let forwarder = try Forwarder(configuration, availableCPUs: availableCPUs, logger: logger)
        wait()
        return forwarder.stop()
    }
}
