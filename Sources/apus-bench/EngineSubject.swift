import CBench
import CDPDK
import Compiler
import EBPF
import Foundation

enum EngineWay: String, CaseIterable { case kernel, compiled, untracked, interpreted, native }

/// One program in all the ways it can run, several times each, and how long they took. Where maps and code happen to lie
/// moves a program by more than what is looked for, and a process places them once: so there are instances.
final class EngineSubject {
    let name: String
    let instructions: Int
    let milliseconds: Double
    let bytes: Int
    /// It can write to packets.
    let tracks: Bool
    private let instances: [EngineInstance]
    /// By way, instance and round.
    private var nets: [EngineWay: [[Double]]] = [:], times: [EngineWay: [[Double]]] = [:]

    init(_ program: EngineProgram, _ bench: Engine, _ compiler: Compiler) throws {
        name = program.name
        instances = try (0..<bench.instances).map { _ in try EngineInstance(program, bench, compiler) }
        let first = instances[0]
        milliseconds = instances.map(\.milliseconds).sorted()[instances.count / 2]
        bytes = first.bytes
        instructions = first.instructions
        tracks = first.canWrite
    }

    /// Net of the empty program, nanoseconds a packet, instance by instance: medians of the rounds.
    func nets(_ way: EngineWay) -> [Double] { nets[way, default: []].filter { !$0.isEmpty }.map(EngineSubject.median) }
    func net(_ way: EngineWay) -> Double? { EngineSubject.mean(nets(way)) }
    /// With what every program takes.
    func time(_ way: EngineWay) -> Double? { EngineSubject.mean(times[way, default: []].filter { !$0.isEmpty }.map(EngineSubject.median)) }

    private static func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
    private static func mean(_ values: [Double]) -> Double? { values.isEmpty ? nil : values.reduce(0, +) / Double(values.count) }

    /// One round of one instance: way by way the empty program and this one, which of them first by turns; and so with the
    /// two ways that are compared most closely.
    func measure(_ round: Int, _ empty: EngineSubject, _ traffic: EngineTraffic, runs: Int) {
        let number = round % instances.count, isOdd = round / instances.count % 2 == 1
        let instance = instances[number], nothing = empty.instances[number]
        let ways: [EngineWay] = [.kernel] + (isOdd ? [.untracked, .compiled] : [.compiled, .untracked]) + [.interpreted, .native]
        for way in ways {
            let times = (isOdd ? [instance, nothing] : [nothing, instance]).map { $0.time(way, traffic, runs: runs) }
            guard let base = times[isOdd ? 1 : 0], let all = times[isOdd ? 0 : 1] else { continue }
            nets[way, default: Array(repeating: [], count: instances.count)][number].append(all - base)
            empty.times[way, default: Array(repeating: [], count: instances.count)][number].append(base)
        }
    }
}

/// A program with maps and code of its own in every way.
final class EngineInstance {
    let milliseconds: Double
    private let kernel: KernelRun
    private let compiled: LoadedProgram, untracked: LoadedProgram, interpreted: LoadedProgram
    private let code: CompiledCode, untrackedCode: CompiledCode
    private let native: NativeProgram?

    var bytes: Int { code.bytes }
    var instructions: Int { compiled.instructions }
    var canWrite: Bool { compiled.canWrite }

    init(_ program: EngineProgram, _ bench: Engine, _ compiler: Compiler) throws {
        let object = program.object
        func load() throws -> LoadedProgram {
            try ProgramLoader.load(object: object, program: program.program, verify: .kernel, entries: EngineInstance.entries(object))
        }
        kernel = try KernelRun(object: object, program: program.program, entries: EngineInstance.entries(object))
        (compiled, untracked, interpreted) = (try load(), try load(), try load())
        let begin = ContinuousClock.now
        code = try compiler.compile(compiled)
        milliseconds = (ContinuousClock.now - begin) / .milliseconds(1)
        untrackedCode = try compiler.compile(untracked, isTracking: false)
        let source = "\(bench.sources)/\(URL(filePath: object).deletingPathExtension().lastPathComponent).bpf.c"
        native = program.program == nil && FileManager.default.fileExists(atPath: source)
            ? try? NativeProgram(source: source, header: bench.header, function: compiled.name, maps: try load()) : nil
        fill()
    }

    /// Hashes of the project's own programs take 10 000 entries and the traffic's.
    private static func entries(_ object: String) -> [String: Int] {
        var entries: [String: Int] = [:]
        for map in (try? ProgramLoader.maps(object: object)) ?? [] {
            if map.maxEntries == 0 { entries[map.name] = 4 }
            else if map.isHash, map.maxEntries < 1 << 14 { entries[map.name] = 1 << 14 }
        }
        return entries
    }

    /// The same entries in every way: 10 000 in each hash.
    private func fill() {
        for map in compiled.maps where map.definition.isPlainHash {
            var state: UInt64 = 88172645463325252
            for _ in 0..<10_000 {
                func bytes(_ count: Int) -> [UInt8] {
                    (0..<count).map { _ in
                        state ^= state << 13
                        state ^= state >> 7
                        state ^= state << 17
                        return UInt8(truncatingIfNeeded: state)
                    }
                }
                let key = bytes(map.definition.keySize), value = [UInt8](repeating: 0, count: map.definition.controlValueSize)
                kernel.update(map.name, key, value)
                for program in [compiled, untracked, interpreted] + (native.map { [$0.program] } ?? []) { try? program.map(named: map.name)?.update(key, value) }
            }
        }
    }

    /// Nanoseconds a run: of every packet a burst of copies, and on each copy `runs` runs, each on what the one before left.
    /// nil: the program does not run so.
    func time(_ way: EngineWay, _ traffic: EngineTraffic, runs: Int) -> Double? {
        switch way {
        case .kernel: kernelTime(traffic, runs)
        case .compiled: traffic.time(compiled, passes: runs)
        case .untracked: traffic.time(untracked, passes: runs)
        case .interpreted: traffic.time(interpreted, passes: runs)
        case .native: native.map { traffic.time($0, passes: runs) }
        }
    }

    private func kernelTime(_ traffic: EngineTraffic, _ runs: Int) -> Double? {
        var total = 0.0, count = 0
        kernel.whileAttached {
            for packet in traffic.packets {
                for _ in 0..<EngineTraffic.burst {
                    guard let time = kernel.nanoseconds(packet, count: runs) else { continue }
                    total += time
                    count += 1
                }
            }
        }
        return count > 0 ? total / Double(count) : nil
    }
}

/// A program compiled by clang for this host.
@safe final class NativeProgram {
    /// It has the maps.
    let program: LoadedProgram
    let function: UnsafeMutableRawPointer

    init(source: String, header: String, function name: String, maps program: LoadedProgram) throws {
        self.program = program
        let library = NSTemporaryDirectory() + "apus-bench-\(getpid())-\(name).so"
        let clang = Process()
        clang.executableURL = URL(filePath: "/usr/bin/env")
        clang.arguments = ["clang", "-O2", "-march=native", "-shared", "-fPIC", "-w", "-I", header, "-isystem",
                           "/usr/include/\(NativeProgram.machine)-linux-gnu", source, "-o", library]
        // A program with helpers that have no native form is measured without.
        clang.standardError = FileHandle.nullDevice
        try clang.run()
        clang.waitUntilExit()
        defer { unsafe unlink(library) }
        guard clang.terminationStatus == 0, let handle = unsafe dlopen(library, RTLD_NOW), let function = unsafe dlsym(handle, name),
              let table = unsafe dlsym(handle, "apus_native") else { throw CocoaError(.executableLoad) }
        unsafe self.function = unsafe function
        let entries = Dictionary(uniqueKeysWithValues: RunEntries.all.map { ($0.name, $0.address) })
        for (index, entry) in ["apus_lookup", "apus_update", "apus_delete", "apus_csum_diff", "apus_ktime"].enumerated() {
            unsafe table.storeBytes(of: entries[entry] ?? 0, toByteOffset: 8 * index, as: UInt64.self)
        }
        for map in program.maps {
            if let variable = unsafe dlsym(handle, map.name) { unsafe variable.storeBytes(of: map.address, as: UInt64.self) }
        }
    }

    static var machine: String {
        #if arch(arm64)
        "aarch64"
        #else
        "x86_64"
        #endif
    }
}
