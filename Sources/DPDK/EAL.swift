import CDPDK
import Glibc
import Synchronization

/// DPDK's environment: one a process, from start to end.
public enum EAL {
    public enum Memory: Equatable, Sendable, CustomStringConvertible {
        /// Of each of the NUMA nodes as much; no nodes: wherever there are some.
        case hugepages(megabytes: Int, nodes: [Int] = [])
        /// Wherever the kernel finds some.
        case normalPages(megabytes: Int)

        public var description: String {
            switch self {
            case .hugepages(let megabytes, let nodes):
                "\(megabytes) MB of hugepages" + (nodes.isEmpty ? "" : ", spread over NUMA node\(nodes.count == 1 ? "" : "s") \(nodes.map(String.init).joined(separator: ", "))")
            case .normalPages(let megabytes): "\(megabytes) MB of normal pages"
            }
        }
    }

    private static let isStarted = Atomic(false)

    /// - Parameters:
    ///   - name: runtime files go under /run/dpdk/apus-NAME; on normal pages two processes of one name exclude each other.
    ///   - pollingCPUs: a pinned lcore for each.
    ///   - otherCPUs: where the main thread and the library's own threads float.
    ///   - hasTelemetry: DPDK opens its telemetry socket among the runtime files.
    ///   - pciAddresses: the only PCI devices it touches.
    /// - Throws: what is missing, in one sentence.
    public static func start(name: String, memory: Memory, pollingCPUs: [Int], otherCPUs: [Int],
                             pciAddresses: [String] = [], hasTelemetry: Bool = false) throws(DPDKError) {
        // The main lcore gets an id of its own above every polled CPU, and floats.
        let main = (pollingCPUs.max() ?? 0) + 1
        let floating = otherCPUs.map(String.init).joined(separator: ",")
        let lcores = pollingCPUs.map { "\($0)@\($0)" } + ["\(main)@(\(floating))"]
        var words = ["apus", hasTelemetry ? "--telemetry" : "--no-telemetry", "--lcores", lcores.joined(separator: ","),
                     "--main-lcore", "\(main)", "--file-prefix", "apus-\(name)",
                     "--log-level", "lib.*:warning", "--log-level", "pmd.*:warning"]
        words += pciAddresses.isEmpty ? ["--no-pci"] : pciAddresses.flatMap { ["--allow", $0] }
        switch memory {
        case .hugepages(let megabytes, let nodes):
            // Without single-file segments a virtio-user peer sees more regions than it can map.
            words += ["--in-memory", "--single-file-segments"]
            words += nodes.isEmpty ? ["-m", "\(megabytes)"] : ["--socket-mem", Self.perNode(megabytes, nodes)]
        case .normalPages(let megabytes):
            words += ["-m", "\(megabytes)", "--no-huge"]
        }
        var arguments = unsafe words.map { unsafe strdup($0) }
        // EAL keeps pointers into the words for the life of the process: they are not freed.
        let status = unsafe arguments.withUnsafeMutableBufferPointer { unsafe rte_eal_init(Int32($0.count), $0.baseAddress) }
        guard status >= 0 else {
            throw DPDKError("DPDK does not start with \(memory)", apus_errno(),
                            remedy: "lower [apus] memory, run as root, and no second daemon of the name '\(name)'; DPDK's own words are above")
        }
        isStarted.store(true, ordering: .relaxed)
        #if APUS_PLANTED
        apus_planted_read()
        #endif
        let registered = apus_mbuf_state_register()
        guard registered == 0 else { throw DPDKError("DPDK has no room for the checksum state in its mbufs", registered) }
    }

    /// What each node gives, for every node up to the last of them.
    private static func perNode(_ megabytes: Int, _ nodes: [Int]) -> String {
        (0...(nodes.max() ?? 0)).map { nodes.contains($0) ? "\(megabytes / nodes.count)" : "0" }.joined(separator: ",")
    }

    /// Call after everything made with it is gone. Removes the runtime files too, which DPDK leaves behind.
    public static func stop() {
        guard isStarted.exchange(false, ordering: .relaxed) else { return }
        let directory = unsafe rte_eal_get_runtime_dir().map { unsafe String(cString: $0) }
        rte_eal_cleanup()
        guard let directory, let entries = unsafe opendir(directory) else { return }
        while let entry = unsafe readdir(entries) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { name in
                unsafe name.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != ".", name != ".." { unsafe _ = unlink("\(directory)/\(name)") }
        }
        unsafe _ = closedir(entries)
        unsafe _ = rmdir(directory)
    }

    /// Runs `body` on the lcore pinned to `cpu`; returns at once.
    /// - Parameter argument: outlives the run.
    public static func launch(onCPU cpu: Int, _ body: @convention(c) (UnsafeMutableRawPointer?) -> Int32,
                              _ argument: UnsafeMutableRawPointer) throws(DPDKError) {
        let status = unsafe rte_eal_remote_launch(body, argument, UInt32(cpu))
        guard status == 0 else { throw DPDKError("the lcore on CPU \(cpu) does not start", status) }
    }

    /// Waits until the lcore's body has returned.
    public static func wait(forCPU cpu: Int) { rte_eal_wait_lcore(UInt32(cpu)) }

    /// Megabytes of free 2 MB hugepages on this host, or on one of its NUMA nodes.
    public static func freeHugepageMegabytes(node: Int? = nil) -> Int {
        max(SystemNumber.read("\(hugepages(node))/free_hugepages") ?? 0, 0) * 2
    }

    /// The command that reserves hugepages.
    public static func reserving(megabytes: Int, node: Int? = nil) -> String {
        "echo \((megabytes + 1) / 2) > \(hugepages(node))/nr_hugepages"
    }

    /// Where the kernel keeps its 2 MB hugepages' numbers.
    static func hugepages(_ node: Int?) -> String {
        (node.map { "/sys/devices/system/node/node\($0)" } ?? "/sys/kernel/mm") + "/hugepages/hugepages-2048kB"
    }

    /// Megabytes of normal pages that could be had now, swap included; nil where the kernel does not say.
    public static func availableMegabytes() -> Int? {
        guard let file = unsafe fopen("/proc/meminfo", "r") else { return nil }
        defer { unsafe _ = fclose(file) }
        var kilobytes: Int?
        var line = [CChar](repeating: 0, count: 128)
        while unsafe fgets(&line, 128, file) != nil {
            let words = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self).split { $0 == " " || $0 == ":" }
            guard words.count > 1, words[0] == "MemAvailable" || words[0] == "SwapFree", let value = Int(words[1]) else { continue }
            kilobytes = (kilobytes ?? 0) + value
        }
        return kilobytes.map { $0 / 1024 }
    }

    public static var version: String { unsafe String(cString: rte_version()) }
}
