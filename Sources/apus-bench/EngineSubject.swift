import CBench
import CDPDK
import Compiler
import EBPF
import Foundation

/// One program in all the ways it can run, and how long each took.
final class EngineSubject {
    enum Way: String, CaseIterable { case kernel, compiled, untracked, interpreted, native }

    let name: String
    let instructions: Int
    let milliseconds: Double
    let bytes: Int
    /// It can write to packets.
    let tracks: Bool
    private let kernel: KernelRun
    private let compiled: LoadedProgram, untracked: LoadedProgram, interpreted: LoadedProgram
    private let codes: [CompiledCode]
    private let native: NativeProgram?
    private var times: [Way: [Double]] = [:]

    init(_ program: EngineProgram, _ bench: Engine, _ compiler: Compiler, _ traffic: EngineTraffic) throws {
        name = program.name
        let object = program.object
        func load() throws -> LoadedProgram {
            try ProgramLoader.load(object: object, program: program.program, verify: .kernel, entries: EngineSubject.entries(object))
        }
        kernel = try KernelRun(object: object, program: program.program, entries: EngineSubject.entries(object))
        (compiled, untracked, interpreted) = (try load(), try load(), try load())
        let begin = ContinuousClock.now
        let code = try compiler.compile(compiled)
        milliseconds = (ContinuousClock.now - begin) / .milliseconds(1)
        codes = [code, try compiler.compile(untracked, isTracking: false)]
        bytes = code.bytes
        instructions = compiled.instructions
        tracks = compiled.canWrite
        let source = "\(bench.sources)/\(URL(filePath: object).deletingPathExtension().lastPathComponent).bpf.c"
        native = program.program == nil && FileManager.default.fileExists(atPath: source)
            ? try? NativeProgram(source: source, header: bench.header, function: compiled.name, maps: try load()) : nil
        fill(traffic)
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
    private func fill(_ traffic: EngineTraffic) {
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

    func median(_ way: Way) -> Double? {
        guard let sorted = times[way]?.sorted(), !sorted.isEmpty else { return nil }
        return sorted[sorted.count / 2]
    }

    /// One round: of every packet a burst of copies, and on each copy `runs` runs, each on what the one before left. The two
    /// that are compared most closely take turns.
    func measure(_ traffic: EngineTraffic, runs: Int) {
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
        if count > 0 { times[.kernel, default: []].append(total / Double(count)) }
        let ways = [(Way.compiled, compiled), (Way.untracked, untracked)]
        let isOdd = times[.compiled, default: []].count % 2 == 1
        for (way, program) in isOdd ? ways.reversed() : ways { times[way, default: []].append(traffic.time(program, passes: runs)) }
        times[.interpreted, default: []].append(traffic.time(interpreted, passes: runs))
        if let native { times[.native, default: []].append(traffic.time(native, passes: runs)) }
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
