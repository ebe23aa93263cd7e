import CBPF
import Foundation

/// What the engine asks of its host. The hooks are the process's, suites run side by side: one test at a time.
enum HostHooks {
    private static let lock = NSRecursiveLock()

    static let loopbackMTU: Int = {
        let text = (try? String(contentsOfFile: "/sys/class/net/lo/mtu", encoding: .utf8)) ?? ""
        return Int(text.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
    }()

    /// With nobody else's hooks set.
    static func alone<Result>(_ body: () throws -> Result) rethrows -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try body()
    }

    /// Devices are as in the namespaces of these tests: the loopback device, and one that is as devices are at first.
    static func withKernelMTUs<Result>(_ body: () throws -> Result) rethrows -> Result {
        try alone {
            defer { apus_set_mtu_hook(nil) }
            setMTUs()
            return try body()
        }
    }

    /// Not generic: what C calls may not be.
    private static func setMTUs() {
        apus_set_mtu_hook { index in index == 1 ? HostHooks.loopbackMTU : index < 1 << 20 ? 1500 : -1 }
    }
}
