@testable import EBPF

/// A program of the fuzzer and the packets it runs on, one after the other. Loads of map addresses name maps by their
/// place in `FuzzMap.allCases`; what the maps start with is always the same.
struct FuzzProgram: Equatable, Sendable {
    var code: [Instruction]
    var packets: [[UInt8]]

    /// Where functions start: the program, what is called, and what is called back.
    var functions: [Int] {
        var starts: Set<Int> = [0]
        for at in code.indices {
            if let target = FuzzProgram.function(code[at], at) { starts.insert(target) }
        }
        return starts.sorted()
    }

    /// The maps its instructions name, and those it reaches through them.
    var maps: Set<FuzzMap> {
        var maps: Set<FuzzMap> = []
        for instruction in code where instruction.isLoadImmediate64
            && (instruction.source == PseudoSource.mapFD || instruction.source == PseudoSource.mapValue) {
            if let map = FuzzMap(rawValue: Int(instruction.immediate)) { maps.insert(map) }
        }
        if maps.contains(.outer) { maps.formUnion([.inner, .otherInner]) }
        if maps.contains(.programs) { maps.insert(.global) }
        return maps
    }

    /// The function an instruction calls or takes the address of.
    static func function(_ instruction: Instruction, _ at: Int) -> Int? {
        instruction.isLocalCall || instruction.isLoadImmediate64 && instruction.source == PseudoSource.function
            ? at + 1 + Int(instruction.immediate) : nil
    }
}

/// What running a program leaves: the same in every engine, or one of them is wrong.
struct FuzzOutcome: Equatable, Sendable {
    struct Run: Equatable, Sendable {
        /// The lower half of r0, as the kernel gives it.
        let r0: UInt32
        /// The packet with its metadata in front.
        let bytes: [UInt8]
    }

    var runs: [Run] = []
    /// Of each map the program names: keys and values; of queues and rings, places and records.
    var maps: [FuzzMap: [[UInt8]: [UInt8]]] = [:]

    /// The first thing that is not the same, for people.
    func difference(from other: FuzzOutcome) -> String? {
        for (number, (a, b)) in zip(runs, other.runs).enumerated() where a != b {
            return a.r0 != b.r0 ? "packet \(number): r0 \(String(a.r0, radix: 16)) and \(String(b.r0, radix: 16))"
                : "packet \(number): bytes \(FuzzText.hex(a.bytes)) and \(FuzzText.hex(b.bytes))"
        }
        for map in FuzzMap.allCases where maps[map] != other.maps[map] { return "map \(map)" }
        return self == other ? nil : "one ran less"
    }
}

/// One way to run a program: the kernel, the interpreter, compiled code. To hook another in, list it in `FuzzEngines`.
protocol FuzzEngine: AnyObject {
    var name: String { get }
    /// It gets every so many-th program.
    var stride: UInt64 { get }
    /// Loads it with its maps as `FuzzMap` fills them, runs it on all its packets, reads the maps, and forgets it.
    /// - Throws: why it is not taken.
    func observe(_ program: FuzzProgram) throws -> FuzzOutcome
}

enum FuzzEngines {
    /// The kernel judges; each of the others has to agree with it. LLVM takes tens of milliseconds for a program, all the
    /// others together about one.
    /// - Parameter stride: how many programs there are for each that is compiled.
    static func judged(compilingEvery stride: UInt64 = 1) -> [any FuzzEngine] {
        [FuzzRuntime(isSandboxed: false), FuzzRuntime(isSandboxed: true), FuzzRuntime(.compiled, isSandboxed: false, stride: stride),
         FuzzRuntime(.compiled, isSandboxed: true, stride: stride), FuzzRuntime(.compiled, isSandboxed: false, effort: .short, stride: stride)]
    }
}
