import CBPF

@testable import EBPF

/// The kernel: its verifier, its JIT, its maps. The maps are made once; each program finds them as `FuzzMap` fills them,
/// because what a program left is read and taken out behind it.
final class FuzzKernel: FuzzEngine {
    struct Refused: Error, CustomStringConvertible { let description: String }

    let name = "kernel", stride: UInt64 = 1
    private var maps: [FuzzMap: Int32] = [:]
    private var targets: [Int32] = []

    init() throws {
        for map in FuzzMap.allCases {
            let d = map.definition
            let fd = map == .outer ? -1 : apus_map_create(d.type, UInt32(d.keySize), UInt32(d.valueSize), UInt32(d.maxEntries), d.flags)
            maps[map] = fd
            if fd < 0 && map != .outer { throw Refused(description: "map \(map): error \(fd)") }
        }
        let outer = apus_twin_map_of_maps(UInt32(FuzzMap.slots), descriptor(.inner))
        guard outer >= 0 else { throw Refused(description: "map outer: error \(outer)") }
        maps[.outer] = outer
        for (slot, name) in FuzzMap.outer.definition.initial {
            try put(.outer, slot, descriptor(name == "inner" ? .inner : .otherInner))
        }
        for (slot, name) in FuzzMap.programs.definition.initial {
            let program = FuzzProgram(code: FuzzTargets.code(name), packets: [])
            targets.append(try load(program))
            try put(.programs, slot, targets[targets.count - 1])
        }
    }

    deinit {
        for fd in targets + maps.values where fd >= 0 { apus_close(fd) }
    }

    private func descriptor(_ map: FuzzMap) -> Int32 { maps[map] ?? -1 }

    private func put(_ map: FuzzMap, _ slot: Int, _ object: Int32) throws {
        let value = (0..<4).map { UInt8(truncatingIfNeeded: object >> (8 * Int32($0))) }
        let error = unsafe apus_map_update(descriptor(map), FuzzMap.key4(slot), value, 0)
        guard error == 0 else { throw Refused(description: "\(map)[\(slot)]: error \(error)") }
    }

    /// With the verifier's words only where they are asked for: they cost more than the verification.
    func load(_ program: FuzzProgram, log isWanted: Bool = false) throws -> Int32 {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(program.code.count * 8)
        for var instruction in program.code {
            if instruction.isLoadImmediate64, instruction.source == PseudoSource.mapFD || instruction.source == PseudoSource.mapValue,
               let map = FuzzMap(rawValue: Int(instruction.immediate)) {
                instruction.immediate = descriptor(map)
            }
            bytes += instruction.encoded
        }
        let functions = program.functions.map(UInt32.init)
        var log = [CChar](repeating: 0, count: isWanted ? 1 << 20 : 0)
        let fd = unsafe apus_twin_load(bytes, program.code.count, functions, functions.count, &log, UInt32(log.count))
        if fd < 0 {
            let words = String(decoding: log.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            throw Refused(description: isWanted ? words : "error \(fd)")
        }
        return fd
    }

    func observe(_ program: FuzzProgram) throws -> FuzzOutcome {
        let fd = try load(program)
        defer { apus_close(fd) }
        let used = program.maps.sorted { $0.rawValue < $1.rawValue }
        for map in used { try fill(map) }
        var outcome = FuzzOutcome()
        for packet in program.packets {
            guard let run = KernelTwin.run(fd, packet) else { throw Refused(description: "does not run a packet of \(packet.count) bytes") }
            outcome.runs.append(.init(r0: run.verdict, bytes: run.bytes))
        }
        for map in used { outcome.maps[map] = try take(map) }
        return outcome
    }

    private func fill(_ map: FuzzMap) throws {
        for (key, value) in map.entries {
            let error = unsafe apus_map_update(descriptor(map), key.isEmpty ? nil : key, value, 0)
            guard error == 0 else { throw Refused(description: "map \(map) takes no entry: error \(error)") }
        }
    }

    /// Reads a map and empties it where it can be empty.
    private func take(_ map: FuzzMap) throws -> [[UInt8]: [UInt8]] {
        let fd = descriptor(map)
        switch map {
        case .programs, .outer, .events: return [:]
        case .queue, .stack:
            var value = [UInt8](repeating: 0, count: map.valueSize)
            return FuzzRuntime.list { unsafe apus_map_take(fd, nil, &value) == 0 ? value : nil }
        case .ring:
            var records = KernelTwin.records(fd, room: 8192)[...]
            return FuzzRuntime.list { records.popFirst() }
        default:
            let entries = MapOperations.contents(fd, map.definition.keySize, map.definition.controlValueSize)
            if !map.isStable && map != .devices {
                for key in entries.keys { _ = unsafe apus_map_delete(fd, key) }
            }
            return entries
        }
    }
}
