import CBPF
import Foundation
import Testing

@testable import Compiler
@testable import EBPF

/// Two of a kind: one interpreted, one compiled, each with maps of its own.
struct Twins {
    let interpreted: LoadedProgram, compiled: LoadedProgram
    let code: CompiledCode

    static let compiler = Result { try Compiler() }

    init(_ planted: TranslationBug? = nil, effort: Effort? = nil, load: () throws -> LoadedProgram) throws {
        interpreted = try load()
        compiled = try load()
        code = try Twins.compiler.get().compile(compiled, planted: planted, effort: effort)
    }

    struct Difference: Error, CustomStringConvertible { let description: String }

    /// Verdict, bytes, the whole buffer around them, r0 and effect.
    func compare(_ bench: Bench, _ packet: [UInt8], comparesR0: Bool = true) throws(Difference) {
        let expected = unsafe bench.run(interpreted, packet), found = unsafe bench.run(compiled, packet, engine: .compiled)
        try compare(expected, found, bench, packet, comparesR0: comparesR0)
    }

    func compare(_ expected: Bench.Run, _ found: Bench.Run, _ bench: Bench, _ packet: [UInt8], comparesR0: Bool = true) throws(Difference) {
        func differ(_ what: String, _ a: Any, _ b: Any) -> Difference { Difference(description: "\(what): interpreter \(a), compiled \(b); \(bench) \(packet)") }
        if expected.effect.verdict != found.effect.verdict { throw differ("verdict", expected.effect, found.effect) }
        if (expected.data, expected.end, expected.meta) != (found.data, found.end, found.meta) { throw differ("ends", (expected.data, expected.end), (found.data, found.end)) }
        if expected.buffer != found.buffer { throw differ("bytes", expected.bytes, found.bytes) }
        if comparesR0, expected.effect.fault == .none, expected.r0 != found.r0 { throw differ("r0", expected.r0, found.r0) }
        var a = expected.effect, b = found.effect
        // Map addresses differ between twins.
        if a.redirect.map != 0 && b.redirect.map != 0 { (a.redirect.map, b.redirect.map) = (1, 1) }
        if "\(a)" != "\(b)" { throw differ("effect", a, b) }
    }

    /// A burst of compiled runs against as many interpreted ones.
    func compareBurst(_ packets: [[UInt8]]) throws(Difference) {
        let size = 2048
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size * packets.count, alignment: 64)
        defer { unsafe memory.deallocate() }
        unsafe memory.initializeMemory(as: UInt8.self, repeating: Bench().filler, count: size * packets.count)
        var contexts = packets.enumerated().map { number, packet in
            let buffer = unsafe memory + size * number, start = unsafe buffer + 256
            for (at, byte) in packet.enumerated() { unsafe start.storeBytes(of: byte, toByteOffset: at, as: UInt8.self) }
            return unsafe XDPContext(data: start, dataEnd: start + packet.count, dataMeta: start, bufferStart: buffer, bufferEnd: buffer + size,
                                     ingressIndex: 7, rxQueue: 3)
        }
        var effects = [Effect](repeating: Effect(), count: packets.count)
        unsafe compiled.runner.run(&contexts, &effects, count: packets.count)
        for (number, packet) in packets.enumerated() {
            let expected = unsafe Bench(bufferSize: size).run(interpreted, packet)
            let start = unsafe contexts[number].data, end = unsafe contexts[number].dataEnd
            let bytes = unsafe Array(UnsafeRawBufferPointer(start: start, count: end - start))
            var a = expected.effect, b = effects[number]
            if a.redirect.map != 0 && b.redirect.map != 0 { (a.redirect.map, b.redirect.map) = (1, 1) }
            guard bytes == expected.bytes, "\(a)" == "\(b)" else {
                throw Difference(description: "packet \(number) of a burst: interpreter \(a) \(expected.bytes), compiled \(b) \(bytes)")
            }
        }
    }

    /// Contents of all maps that hold bytes.
    func compareMaps() throws(Difference) {
        for (a, b) in zip(interpreted.maps, compiled.maps) where ![3, 4, 12, 13].contains(a.definition.type) && a.contents != b.contents {
            throw Difference(description: "map \(a.name): interpreter \(a.contents), compiled \(b.contents)")
        }
    }
}

/// The compiler's slow twin is the interpreter: the same programs on the same packets leave the same.
@Suite(.serialized, .timeLimit(.minutes(30))) struct EngineTests {
    @Test func everyForm() throws {
        for form in InstructionTests.forms {
            let twins = try Twins { try LoadedProgram.bare(Asm.harness(form.body) + form.subprogram) }
            for a in InstructionTests.corners {
                for b in form.description.contains("K") ? [1] : InstructionTests.corners {
                    try twins.compare(Bench(bufferSize: 400), Asm.words([a, b, 0, 0, 0, 0, 0, 0]))
                }
            }
        }
    }

    /// The same over bare memory, as `prog exec` runs them: r1 and r2 instead of a context.
    @Test func everyFormOverMemory() throws {
        for form in InstructionTests.forms {
            let code = ([Asm.mov(6, 1), Asm.load(Asm.double, 3, 6, 0), Asm.load(Asm.double, 4, 6, 8), Asm.mov(5, 2), Asm.mov(0, imm: 0)] + form.body
                + [Asm.store(Asm.double, 6, 16, 3), Asm.store(Asm.double, 6, 24, 4), Asm.store(Asm.double, 6, 32, 5), Asm.mov(0, 3), Asm.exit] + form.subprogram)
            // The subprogram of "call" stands one instruction nearer than in the harness.
            guard form.subprogram.isEmpty else { continue }
            let bytes = code.flatMap(\.encoded)
            for (a, b) in zip(InstructionTests.corners, InstructionTests.corners.reversed()).suffix(2) {
                var interpreted = Asm.words([a, b, 0, 0, 0]), compiled = interpreted, kept: CompiledCode?
                let expected = try RawProgram.run(bytes, memory: &interpreted)
                let found = try RawProgram.run(bytes, memory: &compiled) { kept = try Twins.compiler.get().compile($0) }
                try #require(expected == found && interpreted == compiled, "\(form) \(a) \(b)")
                withExtendedLifetime(kept) {}
            }
        }
    }

    @Test(arguments: ProgramTests.names, Effort.allCases) func programs(_ name: String, _ effort: Effort) throws {
        let path = try Objects.program(name)
        let twins = try Twins(effort: effort) { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }
        try EngineTests.traffic(twins, count: 6000)
    }

    /// Programs for the analysis: partial packets, whose checksum is finished where a program looks.
    @Test func fixtures() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: Objects.fixtures.path + "/analysis").filter { $0.hasSuffix(".bpf.c") }.sorted()
        #expect(names.count >= 28)
        var looked = 0
        for name in names {
            let path = try Objects.fixture(String(name.dropLast(6)))
            guard let program = try Explanation.of(object: path, program: nil).first?.program else { continue }
            let twins = try Twins { try ProgramLoader.load(object: path, program: program, verify: .kernel) }
            try Pinned.run { looked += try EngineTests.traffic(twins, count: 1500, partial: true) }
        }
        #expect(looked > 500)
    }

    /// Contents that make rules bite: flags in every small value, both sides of the traffic's addresses and ports.
    private static func fill(_ map: BPFMap, _ kernel: KernelTwin, _ random: inout SplitMix) {
        let definition = map.definition
        guard !definition.isDataSection, [1, 2, 5, 6, 9, 10, 11].contains(definition.type) else { return }
        var keys: [[UInt8]] = []
        switch definition.keySize {
        case 4 where definition.type == 2 || definition.type == 6:
            let ports: [UInt16] = [8080, 80, 5201, 40003]
            keys = ports.flatMap { [[UInt8($0 & 0xff), UInt8($0 >> 8), 0, 0], [UInt8($0 >> 8), UInt8($0 & 0xff), 0, 0]] } + [[0, 0, 0, 0], [1, 0, 0, 0]]
        case 4: keys = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 100]]
        case 6: keys = [Array(Frame.macs[0..<6]), Array(Frame.macs[6..<12])]
        case 16: keys = [[0xfd] + [UInt8](repeating: 0, count: 11) + [10, 0, 0, 1], [0xfd] + [UInt8](repeating: 0, count: 11) + [10, 0, 0, 100]]
        default: return
        }
        for key in keys where definition.type != 2 && definition.type != 6 || Int(key[0]) | Int(key[1]) << 8 < definition.maxEntries {
            // Per-CPU counters of eight bytes with flags in the low bits: xdp-filter's form.
            let one = [UInt8([0x3f, 0x15, 0x2a, 0x3f].randomElement(using: &random)!)] + [UInt8](repeating: 0, count: definition.valueSize - 1)
            let padded = one + [UInt8](repeating: 0, count: (8 - one.count % 8) % 8)
            let value = definition.isPerCPU ? Array(repeating: padded, count: definition.controlValueSize / padded.count).flatMap { $0 } : one
            try? map.update(key, value)
            _ = kernel.update(map.name, key, value, 0)
        }
    }

    /// What others wrote, as Debian ships it: interpreter, compiled code and kernel.
    @Test func foreign() throws {
        var compiled = 0
        for foreign in try ForeignProgram.packaged() {
            let object = try ObjectFile(name: foreign.path, bytes: try Objects.bytes(foreign.path))
            var entries: [String: Int] = [:]
            for map in object.maps where map.definition.maxEntries == 0 && !map.definition.isDataSection { entries[map.definition.name] = 4 }
            guard let kernel = try? KernelTwin(object: foreign.path, program: foreign.name, entries: entries) else { continue }
            let twins = try Twins { try ProgramLoader.load(object: foreign.path, program: foreign.name, verify: .kernel, entries: entries) }
            var random = SplitMix(8), same = SplitMix(8), traffic = Traffic(seed: 31)
            for map in twins.interpreted.maps { EngineTests.fill(map, kernel, &random) }
            for map in twins.compiled.maps { EngineTests.fill(map, kernel, &same) }
            try Pinned.run {
                for number in 0..<1000 {
                    let packet = traffic.next()
                    var bench = Bench()
                    (bench.ingressIndex, bench.rxQueue, bench.filler) = (1, 0, 0)
                    let expected = unsafe bench.run(twins.interpreted, packet), found = unsafe bench.run(twins.compiled, packet, engine: .compiled)
                    do { try twins.compare(expected, found, bench, packet) } catch { throw Twins.Difference(description: "\(foreign), packet \(number): \(error)") }
                    try #require(found.outcome == kernel.run(packet), "\(foreign), packet \(number)")
                }
            }
            if twins.interpreted.maps.allSatisfy({ $0.definition.type != 9 }) { try twins.compareMaps() }
            compiled += 1
        }
        #expect(compiled >= 25)
    }

    @Test(arguments: HelperTests.cases, [Verification.kernel, .sandbox]) func helpers(_ test: HelperTests.Case, _ verify: Verification) throws {
        let path = try Objects.source("#include <linux/ipv6.h>\n" + HelperTests.source(test))
        let twins = try Twins { try ProgramLoader.load(object: path, program: "helper", verify: verify) }
        var random = SplitMix(UInt64(test.description.utf8.count))
        try Pinned.run {
            for number in 0..<1500 {
                let words = (0..<8).map { _ in UInt64.random(in: 0...(Bool.random(using: &random) ? test.limit : min(test.limit, 9)), using: &random) }
                let size = test.description.contains("bytes") ? Int.random(in: 128...200, using: &random) : 200
                let packet = Array(Asm.words(words + [UInt64](repeating: 0, count: 17)).prefix(size))
                do { try twins.compare(Bench(), packet) } catch { throw Twins.Difference(description: "\(number) \(words): \(error)") }
                if number % 10 == 9 {
                    for program in [twins.interpreted, twins.compiled] { while program.map(named: "ring")?.nextRecord() != nil {} }
                }
            }
        }
        for (a, b) in zip(twins.interpreted.maps, twins.compiled.maps) where a.definition.type <= 11 && ![3, 4].contains(a.definition.type) {
            #expect(a.contents == b.contents, "\(a.name)")
        }
    }

    @Test(arguments: [256, 40, 0]) func adjusting(_ headroom: Int) throws {
        let path = try Objects.source(AdjustTests.source)
        let twins = try Twins { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }
        var random = SplitMix(UInt64(headroom))
        for _ in 0..<3000 {
            let (commands, size) = AdjustTests.random(&random)
            try twins.compare(Bench(headroom: headroom), AdjustTests.packet(commands, size: size, &random))
        }
        try twins.compareMaps()
    }

    @Test func deepCalls() throws {
        for depth: Int32 in [0, 3, 6, 7] {
            for sandboxed in [false, true] where depth < 7 || sandboxed {
                let twins = try Twins { try LoadedProgram.bare(InstructionTests.nested(depth), sandboxed: sandboxed) }
                try twins.compare(Bench(), [UInt8](repeating: 0, count: 64))
            }
        }
    }

    /// Noise in the sandbox, against pages nobody may touch: compiled code stays inside, and maps stay whole.
    @Test func sandboxedNoise() throws {
        var random = SplitMix(815), faults: [Fault: Int] = [:]
        let guarded = SandboxTests.Guarded()
        for _ in 0..<400 {
            let code = SandboxTests.start + SandboxTests.random(Int.random(in: 4...40, using: &random), &random)
            guard let program = try? LoadedProgram.bare(code, maps: SandboxTests.definitions, sandboxed: true) else { continue }
            let compiled = try Twins.compiler.get().compile(program)
            for pass in 0..<4 {
                let packet = (0..<Int.random(in: 14...100, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                let effect = guarded.run(program, packet, atEnd: pass % 2 == 1, engine: .compiled)
                faults[effect.fault, default: 0] += 1
                if effect.fault != .none { try #require(effect.verdict == .aborted) }
            }
            compiled.retire()
            try SandboxTests.checkMaps(program)
        }
        #expect(faults[.none, default: 0] > 20 && faults[.access, default: 0] > 200, "\(faults)")
    }

    /// - Returns: how often a checksum was finished for a look.
    @discardableResult
    static func traffic(_ twins: Twins, count: Int, seed: UInt64 = 42, partial: Bool = false) throws -> Int {
        var traffic = Traffic(seed: seed), looked = 0
        for number in 0..<count {
            let packet = traffic.next()
            let bench = Bench(), isPartial = partial && number % 2 == 0
            // The field is wherever, as long as it is in the packet: finishing it writes bytes that show.
            let field = min(14 + (number % 3 == 0 ? 26 : 36), packet.count - 2)
            func run(_ program: LoadedProgram, _ engine: Engine) -> Bench.Run {
                unsafe bench.run(program, packet, engine: engine) { data in
                    guard isPartial else { return nil }
                    return unsafe UnfinishedChecksum(field: field, isOpaque: number % 8 == 0, complete: {
                        unsafe $0.storeBytes(of: 0x3c, as: UInt8.self)
                        unsafe $0.storeBytes(of: 0xc3, toByteOffset: 1, as: UInt8.self)
                    }, argument: data + field)
                }
            }
            let expected = run(twins.interpreted, .interpreter), found = run(twins.compiled, .compiled)
            try twins.compare(expected, found, bench, packet)
            if expected.effect.looked { looked += 1 }
        }
        try twins.compareMaps()
        return looked
    }
}

/// One CPU for a while: per-CPU values of two runs are then the same CPU's.
enum Pinned {
    static func run(_ body: () throws -> Void) rethrows {
        apus_stay(true)
        defer { apus_stay(false) }
        try body()
    }
}
