import CBPF
import Foundation

@testable import EBPF

/// One program, here and in the kernel, with the same contents in the same maps, on the same CPU.
@safe final class TwinRun {
    let program: LoadedProgram
    let kernel: KernelTwin
    private(set) var verdicts: [UInt32: Int] = [:]
    /// Which of its instructions ran.
    private let hits: UnsafeMutableBufferPointer<UInt8>

    /// The device packets come in on. The kernel's test run takes the loopback device, unless it is told another.
    var device: UInt32 = 1

    /// Kernel functions that ask the receiving device: in the kernel's twin a call of one is what it comes down to here,
    /// because the kernel test-runs nothing that is bound to a device.
    /// - Parameters:
    ///   - egressReads: see `KernelTwin`.
    ///   - hasTargets: whether there is something that packets can be redirected to.
    init(object path: String, program name: String, entries: [String: Int] = [:], egressReads: Set<Int> = [], hasTargets: Bool = true) throws {
        program = try ProgramLoader.load(object: path, program: name, verify: .kernel, entries: entries)
        kernel = try KernelTwin(object: path, program: name, entries: entries, egressReads: egressReads)
        unsafe hits = .allocate(capacity: program.instructions)
        unsafe hits.initialize(repeating: 0)
        if hasTargets {
            for map in program.allMaps { TwinRun.fillTargets(map, kernel) }
        }
    }

    deinit {
        apus_set_trace(nil, nil, 0)
        unsafe hits.deallocate()
    }

    /// For each instruction of the program whether it ran at least once; nil for second halves of 64-bit loads.
    var trace: [Bool?] { program.executable.enumerated().map { at, isExecutable in isExecutable ? unsafe hits[at] != 0 : nil } }

    /// Instructions of the program, and how many of them ran at least once.
    var coverage: (ran: Int, of: Int) { (trace.count { $0 == true }, trace.count { $0 != nil }) }

    /// Sets an entry in both. A value may be shorter than the map's: the rest is 0. Of a per-CPU map every CPU has it.
    func set(_ name: String, _ key: [UInt8], _ value: [UInt8]) throws {
        guard let map = program.map(named: name) else { return }
        let one = value + [UInt8](repeating: 0, count: max(map.definition.valueSize - value.count, 0))
        let padded = one + [UInt8](repeating: 0, count: (8 - one.count % 8) % 8)
        let whole = map.definition.isPerCPU ? Array(repeating: padded, count: map.definition.controlValueSize / padded.count).flatMap { $0 } : one
        do throws(MapError) { try map.update(key, whole) } catch {
            if error == .full { return }
            throw error
        }
        let error = kernel.update(name, key, whole, 0)
        guard error == 0 else { throw Objects.Failed(description: "the kernel takes no such entry in \(name): error \(error)") }
    }

    /// Puts a new map into a map of maps, in both, with this value in its first place.
    func setInner(_ name: String, _ key: [UInt8], _ value: [UInt8]) throws {
        guard let outer = program.map(named: name), let template = outer.definition.inner.first, let inner = BPFMap(template) else { return }
        let first = [UInt8](repeating: 0, count: template.keySize)
        let padded = value + [UInt8](repeating: 0, count: max(template.valueSize - value.count, 0))
        try inner.update(first, padded)
        try outer.setMap(key, inner)
        let descriptor = apus_map_create(template.type, UInt32(template.keySize), UInt32(template.valueSize), UInt32(template.maxEntries), template.flags)
        defer { apus_close(descriptor) }
        let number = (0..<4).map { UInt8(truncatingIfNeeded: descriptor >> (8 * $0)) }
        guard unsafe apus_map_update(descriptor, first, padded, 0) == 0, kernel.update(name, key, number, 0) == 0 else {
            throw Objects.Failed(description: "the kernel takes no such map in \(name)")
        }
    }

    /// Where packets can be redirected: the loopback device in four places, CPU 0, a socket.
    private static func fillTargets(_ map: BPFMap, _ kernel: KernelTwin) {
        let zero: [UInt8] = [0, 0, 0, 0], padding = [UInt8](repeating: 0, count: max(map.definition.valueSize - 4, 0))
        switch map.definition.type {
        case MapType.deviceArray, MapType.deviceHash:
            for place in 0..<UInt8(min(4, map.definition.maxEntries)) {
                try? map.update([place, 0, 0, 0], [1, 0, 0, 0] + padding)
                _ = kernel.update(map.name, [place, 0, 0, 0], [1, 0, 0, 0] + padding, 0)
            }
        case MapType.processors:
            try? map.update(zero, [64, 0, 0, 0] + padding)
            _ = kernel.update(map.name, zero, [64, 0, 0, 0] + padding, 0)
        case MapType.sockets:
            let socket = UInt32(bitPattern: Glibc.socket(44, Int32(SOCK_RAW.rawValue), 0))      // AF_XDP
            let value = (0..<4).map { UInt8(truncatingIfNeeded: socket >> (8 * $0)) }
            if kernel.update(map.name, zero, value, 0) == 0 { try? map.update(zero, value) }
        default: break
        }
    }

    /// Runs both. Nil: equal.
    /// - Parameter metadata: what lies in front of the packet on arrival.
    func run(_ packet: [UInt8], metadata: [UInt8] = [], ignoring: (Outcome) -> Outcome = { $0 }) -> String? {
        var bench = Bench()
        bench.filler = 0
        bench.metadata = metadata.count
        bench.metadataBytes = metadata
        bench.ingressIndex = device
        bench.rxQueue = 0
        unsafe apus_set_trace(hits.baseAddress, program.tracedCode(), hits.count)
        let run = bench.run(program, packet)
        apus_set_trace(nil, nil, 0)
        var ours = run.outcome
        // A number that is no verdict is an abort, to the kernel's test run a number.
        if ours.verdict == 0 { ours.verdict = UInt32(truncatingIfNeeded: run.r0) }
        verdicts[ours.verdict, default: 0] += 1
        guard let theirs = kernel.run(packet, metadata: metadata, device: device == 1 ? 0 : device) else { return "the kernel does not run it on \(packet)" }
        if ignoring(ours) == ignoring(theirs) { return nil }
        return "verdict \(ours.verdict), in the kernel \(theirs.verdict); packet \(packet)\nours   \(ours.bytes)\nkernel \(theirs.bytes)"
    }

    /// The first map whose contents differ. Least recently used ones go by different rules when they are full.
    func differingMap(except: Set<String> = [], withLRU: Bool = false) -> String? {
        for map in program.allMaps where !except.contains(map.name) && !map.definition.isFrozen {
            let isComparable = [MapType.array, MapType.hash, MapType.prefixTrie, MapType.perCPUArray, MapType.perCPUHash].contains(map.definition.type)
                || withLRU && [MapType.lruHash, MapType.lruPerCPUHash].contains(map.definition.type)
            guard isComparable else { continue }
            let ours = map.contents, theirs = kernel.entries(map.name)
            if ours == theirs { continue }
            let key = ours.first { theirs[$0.key] != $0.value }?.key ?? theirs.first { ours[$0.key] == nil }?.key ?? []
            return "\(map.name) at \(key): \(ours[key] ?? []), in the kernel \(theirs[key] ?? [])"
        }
        return nil
    }

    /// Both run on one CPU, so that per-CPU values can be compared. Undone by `unpin`.
    static func pin(_ cpu: Int32) { apus_pin(cpu) }
    static func unpin() { apus_pin(-1) }
}
