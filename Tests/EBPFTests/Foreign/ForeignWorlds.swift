import CBPF

@testable import EBPF

/// Circumstances to run a foreign program in: constants its tool would set, sizes and contents of maps, packets besides the
/// usual ones, and where they come in.
struct ForeignWorld {
    var name = "filled"
    var constants: [String: [UInt8]] = [:]
    /// For maps declared without a size.
    var size = 4
    var cpu: Int32 = 0
    /// Maps have contents, and redirects somewhere to go.
    var isFilled = true
    /// Maps that have none all the same.
    var empty: Set<String> = []
    /// Made for this program: run even where another world showed two verdicts.
    var isSpecial = false
    /// Every fourth packet is one of these.
    var packets: [[UInt8]] = []
    /// What lies in front of packets, in turn.
    var metadata: [[UInt8]] = [[]]
    var contents: [(map: String, key: [UInt8], value: [UInt8])] = []
    /// Packets come in on a device of its own namespace instead of the loopback device.
    var hasOtherDevice = false
    /// Bytes in the output that hold a time, where the packet grew.
    var times: Range<Int>?

    /// The worlds for a program: with its maps filled first; then, where one verdict was all it gave, others; then its own.
    static func all(for program: ForeignProgram, _ bound: VerdictBound) -> [ForeignWorld] {
        var worlds = [ForeignWorld()]
        // Nothing would come of more, as the bound has it, which the first run checks.
        if bound.verdicts?.count != 1 {
            // Counters are kept by CPU: one that has none is an error to these programs.
            worlds.append(ForeignWorld(name: "no counters for the CPU", size: 1, cpu: 1))
            worlds.append(ForeignWorld(name: "empty maps", isFilled: false))
        }
        if bound.contextReads.contains(8) || bound.helpers.contains(54) {      // data_meta; bpf_xdp_adjust_meta
            worlds.append(ForeignWorld(name: "metadata", isSpecial: true, metadata: metadata))
        }
        if bound.contextReads.contains(12) { worlds.append(ForeignWorld(name: "another device", isSpecial: true, hasOtherDevice: true)) }
        return worlds + special(program)
    }

    /// None, little, and as much as the headroom holds.
    private static let metadata: [[UInt8]] = [[], [2, 0, 0, 0], [0x42, 0, 0, 0, 1, 2, 3, 4], [1, 0, 0, 0] + [UInt8](repeating: 7, count: 28),
                                              [3, 0, 0, 0] + [UInt8](repeating: 5, count: 212)]

    struct NoNamespace: Error, CustomStringConvertible { let description: String }

    /// With the number of the device that packets come in on.
    func inNamespace<Result>(_ body: (UInt32) throws -> Result) throws -> Result {
        guard hasOtherDevice else { return try body(1) }
        var sandbox = apus_sandbox()
        let error = unsafe apus_sandbox_enter(&sandbox)
        guard error == 0 else { throw NoNamespace(description: "no network namespace for a second device: error \(-error)") }
        defer { unsafe apus_sandbox_leave(&sandbox) }
        return try body(sandbox.device)
    }

    // MARK: Contents

    static let client: [UInt8] = [10, 0, 0, 1], service: [UInt8] = [10, 0, 0, 100]
    static let client6: [UInt8] = [0xfd, 0] + [UInt8](repeating: 0, count: 10) + client
    static let service6: [UInt8] = [0xfd, 0] + [UInt8](repeating: 0, count: 10) + service

    func fill(_ run: TwinRun) throws {
        var random = SplitMix(8)
        for (map, key, value) in contents { try run.set(map, key, value) }
        guard isFilled else { return }
        let own = empty.union(contents.map(\.map))
        for map in run.program.maps where !own.contains(map.name) {
            if let contents = ForeignWorld.known(map) {
                for (key, value) in contents { try run.set(map.name, key, value) }
            } else {
                try ForeignWorld.generic(run, map.definition, &random)
            }
        }
    }

    static func little(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }

    /// Maps whose programs want more than flags.
    private static func known(_ map: BPFMap) -> [([UInt8], [UInt8])]? {
        func wide(_ address: [UInt8]) -> [UInt8] { address + [UInt8](repeating: 0, count: 16 - address.count) }
        switch (map.name, map.definition.keySize) {
        case ("vip2tnl", 24):       // struct vip: address, port, family, protocol; struct iptnl_info
            var entries: [([UInt8], [UInt8])] = []
            for (address, family) in [(service, UInt8(2)), (service6, UInt8(10))] {
                for port in [8080, 8081] as [UInt16] {
                    for number in [6, 17] as [UInt8] {
                        let kind: [UInt8] = [family, 0, number, 0, 0, 0], target: [UInt8] = family == 2 ? [172, 16, 0, 1] : client6
                        entries.append((wide(address) + Frame.big(port) + kind, wide(address) + wide(target) + [family, 0, 2, 0, 0, 0, 0, 7]))
                    }
                }
            }
            return entries
        case ("vip_map", 24):       // struct vip_definition; struct vip_meta
            var entries: [([UInt8], [UInt8])] = []
            for address in [service, service6] {
                for number in [6, 17] as [UInt8] {
                    let every: [UInt8] = [0, 0, 0, 0, number, 0, 0, 0], one: [UInt8] = Frame.big(8080) + [0, 0, number, 0, 0, 0]
                    entries.append((wide(address) + one, little(0) + little(1)))
                    entries.append((wide(address) + every, little(2) + little(2)))
                }
            }
            return entries
        case ("ch_rings", 4): return (0..<12).map { (little($0), little($0 % 3)) }
        case ("reals", 4): return [(little(0), wide([172, 16, 0, 1])), (little(1), wide([172, 16, 0, 2])), (little(2), client6 + [1])]
        case ("lpm_map", 8):        // router: prefix, then value with MAC, device, metric and gateway
            let mac: [UInt8] = [0, 0, 0, 0, 2, 0, 0, 0, 0, 9, 0, 0], route: [UInt8] = mac + little(0) + little(1)
            let near: [UInt8] = [10, 0, 0, 0], far: [UInt8] = [198, 51, 100, 0]
            return [(little(24) + near, near + route + [10, 0, 0, 9]), (little(24) + far, far + route + [10, 0, 0, 8])]
        case ("arp_table", 4): return [([10, 0, 0, 2], [2, 0, 0, 0, 0, 2, 0, 0]), ([10, 0, 0, 9], [2, 0, 0, 0, 0, 9, 0, 0])]
        case ("exact_match", 4):
            let mac: [UInt8] = [2, 0, 0, 0, 0, 1, 0, 0], zero: [UInt8] = [0, 0, 0, 0]
            return [(service, mac + service + zero + zero + zero + mac)]
        case ("ping_map", 4): return [([10, 0, 0, 2], [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]), (client, [1, 0, 0, 0, 0, 0, 0, 0, 0, 2])]
        case ("mac_map", 4): return [(little(0), [2, 0, 0, 0, 0, 7])]
        case ("cpus_iterator", 4): return [(little(0), little(0))]
        case ("cpus_available", 4): return [(little(0), little(0)), (little(1), little(9)), (little(2), little(0)), (little(3), little(9))]
        case ("cpus_count", 4): return [(little(0), little(4))]
        default: return nil
        }
    }

    /// Contents that make rules bite: flags in every small value, both sides of the traffic's addresses and ports.
    private static func generic(_ run: TwinRun, _ definition: MapDefinition, _ random: inout SplitMix) throws {
        if let inner = definition.inner.first, [MapType.array, MapType.hash].contains(inner.type) { try run.setInner(definition.name, [0, 0, 0, 0], [42]) }
        guard !definition.isDataSection, [1, 2, 5, 6, 9, 10, 11].contains(definition.type) else { return }
        let isArray = definition.type == MapType.array || definition.type == MapType.perCPUArray
        var keys: [[UInt8]] = []
        switch definition.keySize {
        case 4 where isArray:
            let ports: [UInt16] = [8080, 80, 5201, 40003]
            keys = ports.flatMap { [[UInt8($0 & 0xff), UInt8($0 >> 8), 0, 0], [UInt8($0 >> 8), UInt8($0 & 0xff), 0, 0]] } + [[0, 0, 0, 0], [1, 0, 0, 0]]
        case 4: keys = [client, [10, 0, 0, 2], service]
        case 6: keys = [Array(Frame.macs[0..<6]), Array(Frame.macs[6..<12])]
        case 8 where definition.type == MapType.prefixTrie: keys = [[24, 0, 0, 0, 10, 0, 0, 0], [32, 0, 0, 0] + service]
        case 16: keys = [client6, service6]
        default: return
        }
        for key in keys where !isArray || Int(key[0]) | Int(key[1]) << 8 < definition.maxEntries {
            try run.set(definition.name, key, [[0x3f, 0x15, 0x2a, 0x3f].randomElement(using: &random)!])
        }
    }
}
