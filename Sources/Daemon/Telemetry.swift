import CDPDK
import Control
import Synchronization

/// The counters once more, through DPDK's own telemetry socket, so that its scripts and exporters find them:
/// `/apus/port`, `/apus/program`, `/apus/lcore` list names, and with a name give its numbers.
enum Telemetry {
    /// DPDK hands its callbacks nothing of ours. nil: nobody forwards.
    private static let reporter = Mutex<StatsReporter?>(nil)

    static func start(_ reporter: StatsReporter) {
        self.reporter.withLock { $0 = reporter }
        unsafe _ = rte_telemetry_register_cmd("/apus/port", { _, name, data in
            unsafe Telemetry.answer(name, data) { $0.ports.mapValues(Telemetry.numbers) }
        }, "Counters of a port. Takes the port's name.")
        unsafe _ = rte_telemetry_register_cmd("/apus/program", { _, name, data in
            unsafe Telemetry.answer(name, data) { $0.xdp.mapValues(Telemetry.numbers) }
        }, "Counters of an XDP program. Takes its section's name.")
        unsafe _ = rte_telemetry_register_cmd("/apus/lcore", { _, name, data in
            unsafe Telemetry.answer(name, data) { document in
                Dictionary(uniqueKeysWithValues: document.lcores.map { ("\($0.key)", Telemetry.numbers($0.value)) })
            }
        }, "Counters of a polling lcore. Takes its CPU's number.")
    }

    static func stop() { reporter.withLock { $0 = nil } }

    private static func answer(_ name: UnsafePointer<CChar>?, _ data: OpaquePointer?,
                               _ select: (StatsDocument) -> [String: [(String, UInt64)]]) -> Int32 {
        guard let data = unsafe data, let document = reporter.withLock({ $0?.document() }) else { return -1 }
        let all = select(document)
        guard let name = unsafe name, unsafe name.pointee != 0 else {
            unsafe _ = rte_tel_data_start_array(data, RTE_TEL_STRING_VAL)
            for name in all.keys.sorted() { unsafe _ = rte_tel_data_add_array_string(data, name) }
            return 0
        }
        guard let numbers = all[unsafe String(cString: name)] else { return -1 }
        unsafe _ = rte_tel_data_start_dict(data)
        for (key, value) in numbers { unsafe _ = rte_tel_data_add_dict_u64(data, key, value) }
        return 0
    }

    private static func numbers(_ port: PortStats) -> [(String, UInt64)] {
        [("index", UInt64(port.index)), ("rx_packets", port.rxPackets), ("rx_bytes", port.rxBytes), ("tx_packets", port.txPackets),
         ("tx_bytes", port.txBytes), ("rx_superframes", port.rxSuperframes), ("tx_superframes", port.txSuperframes),
         ("created", port.created ?? 0)] + port.drops.sorted { $0.key < $1.key }.map { ("drop_\($0.key)", $0.value) }
    }

    private static func numbers(_ program: ProgramStats) -> [(String, UInt64)] {
        [("packets", program.packets), ("written", program.written), ("looked", program.looked), ("aborted", program.aborted),
         ("drop", program.drop), ("pass", program.pass), ("tx", program.tx), ("redirect", program.redirect), ("cycles", program.cycles)]
    }

    private static func numbers(_ lcore: LcoreStats) -> [(String, UInt64)] {
        [("polls", lcore.polls), ("busy_polls", lcore.busyPolls), ("packets", lcore.packets), ("cycles_busy", lcore.cyclesBusy),
         ("cycles_total", lcore.cyclesTotal)]
    }
}
