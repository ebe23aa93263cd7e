import CBPF

@testable import Compiler
@testable import EBPF

/// The engines under test, interpreter and compiler: trusting, as after the kernel's verification, or watching, as in the
/// sandbox, which must not stop what the kernel accepts.
final class FuzzRuntime: FuzzEngine {
    let engine: Engine
    let isSandboxed: Bool
    /// What is wrong with the compiler.
    let planted: TranslationBug?
    let effort: Effort
    let stride: UInt64
    var name: String { (engine == .compiled ? (effort == .short ? "compiled shortly" : "compiled") : "interpreter") + (isSandboxed ? " in the sandbox" : "") }
    /// The packet as BPF_PROG_TEST_RUN presents it: on lo, behind 256 bytes of zeros.
    private let bench = Bench(ingressIndex: 1, rxQueue: 0, filler: 0)

    init(_ engine: Engine = .interpreter, isSandboxed: Bool, planted: TranslationBug? = nil, effort: Effort = .thorough, stride: UInt64 = 1) {
        self.engine = engine
        self.isSandboxed = isSandboxed
        self.planted = planted
        self.effort = effort
        self.stride = stride
    }

    struct Stopped: Error { let fault: Fault }
    struct Misread: Error { let r0: UInt32, verdict: XDPVerdict }

    static func linked(_ program: FuzzProgram) -> [LinkedProgram] {
        let others = program.maps.contains(.programs) ? FuzzTargets.names : []
        return [LinkedProgram(name: "main", instructions: program.code, maps: FuzzMap.definitions)]
            + others.map { LinkedProgram(name: $0, instructions: FuzzTargets.code($0), maps: FuzzMap.definitions) }
    }

    func observe(_ program: FuzzProgram) throws -> FuzzOutcome {
        let linked = FuzzRuntime.linked(program)
        let set = ProgramSet(linked[0].object, isSandboxed: isSandboxed)
        let loaded = try set.load(linked)
        let code = engine == .compiled ? try Twins.compiler.get().compile(loaded, planted: planted, effort: effort) : nil
        defer { code?.retire() }
        let used = program.maps
        for map in used {
            guard let here = set.maps[map.rawValue] else { continue }
            for (key, value) in map.entries { try here.update(key, value) }
        }
        var outcome = FuzzOutcome()
        for packet in program.packets {
            let run = bench.run(loaded, packet, engine: engine)
            if run.effect.fault != .none { throw Stopped(fault: run.effect.fault) }
            let r0 = UInt32(truncatingIfNeeded: run.r0)
            // The kernel's drivers take a number that is no action for XDP_ABORTED.
            if run.effect.verdict != XDPVerdict(rawValue: r0) ?? .aborted { throw Misread(r0: r0, verdict: run.effect.verdict) }
            outcome.runs.append(.init(r0: r0, bytes: run.outcome.bytes))
        }
        for map in used {
            guard let here = set.maps[map.rawValue] else { continue }
            outcome.maps[map] = FuzzRuntime.contents(here, map)
        }
        return outcome
    }

    static func contents(_ here: BPFMap, _ map: FuzzMap) -> [[UInt8]: [UInt8]] {
        switch map {
        case .programs, .outer, .events: return [:]
        case .queue, .stack: return list { try? here.take([]) }
        case .ring: return list { here.nextRecord() }
        default: return here.contents
        }
    }

    /// What comes out of a queue, by its place.
    static func list(_ next: () -> [UInt8]?) -> [[UInt8]: [UInt8]] {
        var result: [[UInt8]: [UInt8]] = [:]
        while let record = next() { result[[UInt8(truncatingIfNeeded: result.count), UInt8(truncatingIfNeeded: result.count >> 8)]] = record }
        return result
    }
}
