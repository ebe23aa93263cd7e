import Foundation
import Testing

@testable import EBPF

/// What runs do is within what the analysis said: for real programs, and for random ones, run as strangers.
@Suite struct AnalysisSoundnessTests {
    private func check(_ analysis: Analysis, _ effect: Effect, _ what: @autoclosure () -> String) {
        #expect(analysis.mayWrite(effect.written), "\(what()): \(effect)")
        if analysis.isReadOnly { #expect(!effect.wrote, "\(what()): \(effect)") }
        guard analysis.limit == nil, !analysis.writesElsewhere else { return }
        if effect.headDelta != 0 { #expect(analysis.adjustments.contains { $0.helper == "bpf_xdp_adjust_head" }, "\(what())") }
        if effect.tailDelta != 0 || effect.lowestEnd != 0 { #expect(analysis.adjustments.contains { $0.helper == "bpf_xdp_adjust_tail" }, "\(what())") }
    }

    /// The project's own programs, the fixtures, and foreign objects where the machine has them.
    private func objects() throws -> [String] {
        let fixtures = try FileManager.default.contentsOfDirectory(atPath: Objects.fixtures.appendingPathComponent("analysis").path)
        let own = try FileManager.default.contentsOfDirectory(atPath: Objects.programs.path)
        let foreign = ["x86_64", "aarch64"].flatMap { machine -> [String] in
            let folder = "/usr/lib/\(machine)-linux-gnu/bpf"
            return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).filter { $0.hasSuffix(".o") }.map { "\(folder)/\($0)" }
        }
        return try fixtures.filter { $0.hasSuffix(".bpf.c") }.map { try Objects.fixture(String($0.dropLast(6))) }
            + own.filter { $0.hasSuffix(".bpf.c") }.map { try Objects.program(String($0.dropLast(6))) } + foreign
    }

    @Test func realProgramsStayWithinTheirAnalysis() throws {
        var loaded = 0
        for object in try objects() {
            let names = ((try? Explanation.of(object: object, program: nil)) ?? []).map(\.program)
            for name in names {
                guard let program = try? ProgramLoader.load(object: object, program: name, verify: .kernel) else { continue }
                loaded += 1
                var traffic = Traffic(seed: UInt64(loaded))
                for _ in 0..<400 {
                    check(program.analysis, Bench().run(program, traffic.next()).effect, "\(object) \(name)")
                }
            }
        }
        #expect(loaded >= 32, "\(loaded) programs")
    }

    // MARK: Random programs

    /// Noise: whatever the instructions are, the analysis ends and does not trap.
    @Test func noiseIsAnalysed() {
        var random = SplitMix(11)
        for round in 0..<4000 {
            let count = Int.random(in: 1...60, using: &random)
            let opcodes: [UInt8] = [0x07, 0x0f, 0x1f, 0x18, 0x61, 0x69, 0x71, 0x79, 0x63, 0x6b, 0x7b, 0x62, 0x85, 0x95, 0x15, 0x1d, 0x25, 0x05, 0xbf, 0xb7, 0x57, 0x67, 0x77, 0xdb, 0xc3, 0x06, 0xdc, 0xb4]
            let code = (0..<count).map { _ in
                Instruction(opcode: round % 2 == 0 ? UInt8.random(in: 0...255, using: &random) : opcodes.randomElement(using: &random)!,
                            destination: UInt8.random(in: 0...(round % 3 == 0 ? 15 : 10), using: &random), source: UInt8.random(in: 0...10, using: &random),
                            offset: Bool.random(using: &random) ? Int16.random(in: -8...20, using: &random) : Int16.random(in: .min ... .max, using: &random),
                            immediate: Bool.random(using: &random) ? Int32.random(in: 0...200, using: &random) : Int32.random(in: .min ... .max, using: &random))
            }
            let analysis = Analysis.of(LinkedProgram(name: "noise", instructions: code, maps: []))
            #expect(analysis.marks.count == count && analysis.steps <= AnalysisEngine.stepsMax + 1)
        }
    }

    /// Programs that play with the field: parse a little, mix, spill, branch, store, move the head.
    private struct Player {
        var random: SplitMix
        var code: [Instruction] = []
        /// Functions for helpers to call. Where the address of one is taken stands its number, until all have their places.
        private var callbacks: [[Instruction]] = []
        private var depth = 0

        init(random: SplitMix) { self.random = random }

        mutating func pick<T>(_ values: [T]) -> T { values.randomElement(using: &random)! }
        private mutating func register() -> UInt8 { UInt8.random(in: 0...5, using: &random) }
        private mutating func size() -> UInt8 { pick([Asm.byte, Asm.half, Asm.half, Asm.word, Asm.double]) }

        mutating func program() -> [Instruction] {
            code = [Asm.mov(9, 1)] + Asm.load64(1, 0).enumerated().map { $0.offset == 0 ? Instruction(opcode: 0x18, destination: 1, source: 1) : $0.element }
            code += [Asm.store(Asm.word, 10, -4, imm: 0), Asm.mov(2, 10), Asm.alu(0x07, 2, imm: -4), Asm.call(1), Asm.mov(8, 0)]
            code += [Asm.alu(0x55, 8, offset: 2, imm: 0), Asm.mov(0, imm: 2), Asm.exit]
            code += [Asm.load(Asm.word, 6, 9, 0)] + (0...5).map { Asm.mov($0, imm: Int32($0)) }
            clearFrame()
            if Int.random(in: 0..<4, using: &random) > 0 { facts() }
            for _ in 0..<Int.random(in: 3...14, using: &random) { statement() }
            // The verdict: a number, or whatever was found.
            if Bool.random(using: &random) { code += [Asm.mov(0, imm: 2)] } else { code += [Asm.alu(0x57, 0, imm: 1), Asm.alu(0x07, 0, imm: 1)] }
            code.append(Asm.exit)
            let starts = callbacks.indices.map { code.count + callbacks[..<$0].reduce(0) { $0 + $1.count } }
            code += callbacks.joined()
            for at in code.indices where code[at].opcode == 0x18 && code[at].source == PseudoSource.function {
                code[at].immediate = Int32(starts[Int(code[at].immediate)] - at - 1)
            }
            return code
        }

        /// A loop of the kernel's over a function that plays on, with the same pointers in the same registers. It finds them
        /// in its caller's frame, where it also gets at what the caller keeps.
        private mutating func loop() {
            guard depth < 2 else { return }
            let outer = code
            depth += 1
            code = [Asm.mov(7, 2), Asm.load(Asm.double, 9, 7, 0), Asm.load(Asm.double, 8, 7, -8), Asm.load(Asm.word, 6, 9, 0)]
            code += [Asm.mov(0, 1), Asm.load(Asm.double, 1, 7, 24), Asm.load(Asm.double, 2, 7, 16), Asm.load(Asm.half, 3, 7, 8), Asm.mov(4, imm: 4), Asm.mov(5, imm: 5)]
            clearFrame()
            for _ in 0..<Int.random(in: 1...5, using: &random) {
                statement()
                if Int.random(in: 0..<3, using: &random) == 0 { code.append(Asm.store(size(), 7, pick([8, 9, 16, 20, 24]), register())) }
            }
            // It goes on, or ends after a round, or whatever was found decides.
            switch Int.random(in: 0..<4, using: &random) {
            case 0: code.append(Asm.alu(0x57, 0, imm: 1))
            case 1: code.append(Asm.mov(0, imm: 1))
            default: code.append(Asm.mov(0, imm: 0))
            }
            code.append(Asm.exit)
            depth -= 1
            let number = callbacks.count
            callbacks.append(code)
            code = outer
            code += [Asm.store(Asm.double, 10, -40, 9), Asm.store(Asm.double, 10, -48, 8), Asm.mov(1, imm: pick([0, 1, 2, 5]))]
            if Int.random(in: 0..<4, using: &random) == 0 { code += [Asm.load(Asm.byte, 1, 6, pick([15, 23, 40])), Asm.alu(0x57, 1, imm: 3)] }
            code += [Asm.alu(0x18, 2, PseudoSource.function, imm: Int32(number)), Asm.alu(0, 0), Asm.mov(3, 10), Asm.alu(0x07, 3, imm: -40)]
            code += [Asm.mov(4, imm: 0), Asm.call(181), Asm.load(Asm.word, 6, 9, 0)]
        }

        private mutating func clearFrame() {
            for at in [-16, -24, -32] { code.append(Asm.store(Asm.double, 10, Int16(at), imm: 0)) }
        }

        private mutating func unless(_ register: UInt8, is value: Int32) {
            code += [Asm.alu(0x15, register, offset: 2, imm: value), Asm.mov(0, imm: 1), Asm.exit]
        }

        private mutating func facts() {
            code.append(Asm.load(Asm.half, 1, 6, 12))
            unless(1, is: 8)
            if Bool.random(using: &random) {
                code.append(Asm.load(Asm.byte, 1, 6, 23))
                unless(1, is: pick([6, 17]))
            }
            if Bool.random(using: &random) {
                code += [Asm.load(Asm.byte, 1, 6, 14), Asm.alu(0x57, 1, imm: 15)]
                unless(1, is: pick([5, 5, 6]))
            }
        }

        /// Offsets near fields, and others.
        private mutating func offset() -> Int16 { pick([12, 14, 20, 23, 34, 36, 38, 39, 40, 41, 42, 43, 44, 46, 48, 49, 50, 51, 52, 53, 54, 58, 62]) }

        private mutating func statement() {
            let d = register(), s = register()
            switch Int.random(in: 0..<21, using: &random) {
            case 0, 1, 2: code.append(Asm.load(size(), d, 6, offset()))
            case 3, 4:
                // The length field, as parsers use it.
                code += [Asm.load(Asm.byte, 4, 6, 14), Asm.alu(0x57, 4, imm: 15), Asm.alu(0x67, 4, imm: 2), Asm.mov(3, 6), Asm.alu(0x0f, 3, 4)]
                if Bool.random(using: &random) { code.append(Asm.load(size(), d, 3, 14 + pick([0, 2, 4, 5, 6, 7, 12, 14, 15, 16, 17, 18]))) }
                else { code.append(Asm.store(pick([Asm.half, Asm.half, Asm.byte, Asm.word]), 3, 14 + pick([0, 4, 6, 16, 18]), s == 3 || s == 4 ? 1 : s)) }
            case 5, 6: code.append(Asm.alu(pick([0x0f, 0x1f, 0x4f, 0x5f, 0xaf, 0x2f, 0x0c, 0x4c, 0xbc, 0xbf]), d, s))
            case 7: code.append(Asm.alu(pick([0x07, 0x57, 0x47, 0xa7, 0x54, 0x17]), d, imm: pick([0xff, 0xffff, 0xff00, 1, 0xf0, -1])))
            case 8: code.append(Asm.alu(pick([0x67, 0x77, 0x64, 0x74, 0xc7]), d, imm: pick([8, 16, 4, 24, 1, 32])))
            case 9: code.append(Asm.alu(0xdc, d, imm: pick([16, 32, 64])))
            case 10: code.append(Asm.store(size(), 10, pick([-16, -15, -12, -24, -20, -32]), s))
            case 11: code.append(Asm.load(size(), d, 10, pick([-16, -15, -14, -12, -24, -20, -32])))
            case 12: code.append(Asm.store(size(), 6, offset(), s))
            case 13: if Int.random(in: 0..<3, using: &random) == 0 { code.append(Asm.store(pick([Asm.byte, Asm.word]), 8, pick([0, 4]), s)) }
            case 14: code.append(Asm.store(Asm.half, 6, pick([40, 50]), imm: 0))
            case 15, 16:
                // An arm: skipped or not.
                let from = code.count
                code.append(Asm.alu(pick([0x15, 0x55, 0x25, 0xb5, 0x45, 0x65, 0x1d]), d, s, imm: pick([0, 0, 0xffff, 1, 0x100, 0x7fff])))
                for _ in 0..<Int.random(in: 1...3, using: &random) { simple() }
                code[from].offset = Int16(code.count - from - 1)
            case 17:
                code += [Asm.mov(1, imm: 0), Asm.mov(2, imm: 0), Asm.mov(3, 6), Asm.alu(0x07, 3, imm: Int32(offset())), Asm.mov(4, imm: pick([4, 8, 20])), Asm.mov(5, imm: 0), Asm.call(28)]
            case 18: if Int.random(in: 0..<3, using: &random) == 0 {
                code += [Asm.mov(1, 9), Asm.mov(2, imm: pick([-8, -4, 4, 8])), Asm.call(44), Asm.load(Asm.word, 6, 9, 0)]
            }
            case 19: loop()
            default: code.append(Asm.mov(d, s))
            }
        }

        private mutating func simple() {
            let d = register(), s = register()
            switch Int.random(in: 0..<6, using: &random) {
            case 0: code.append(Asm.mov(d, imm: pick([0, 1, 0xffff])))
            case 1: code.append(Asm.alu(pick([0x07, 0x17]), d, imm: pick([1, 0xffff])))
            case 2: code.append(Asm.store(Asm.half, 10, pick([-16, -24]), s))
            case 3: code.append(Asm.store(Asm.half, 6, pick([40, 50, 40, 50, 16]), s))
            case 4: code.append(Asm.load(Asm.half, d, 6, offset()))
            default: code.append(Asm.mov(d, s))
            }
        }
    }

    private final class Finisher {
        var frame: UnsafeMutableRawPointer
        let at: Int
        let bytes: [UInt8]
        init(_ frame: UnsafeMutableRawPointer, _ at: Int, _ bytes: [UInt8]) { unsafe self.frame = frame; self.at = at; self.bytes = bytes }
    }

    /// A seed and a finished checksum, seen by the same program: finished where the analysis says so, they make no
    /// difference to verdict, map or any byte but the field's own. APUS_SOAK times as many programs.
    @Test func seedsMakeNoDifference() throws {
        let soak = ProcessInfo.processInfo.environment["APUS_SOAK"].flatMap(Int.init) ?? 1
        let map = MapDefinition(name: "m", type: 2, keySize: 4, valueSize: 16, maxEntries: 1, flags: 0)
        var random = SplitMix(UInt64(ProcessInfo.processInfo.environment["APUS_SEED"].flatMap(Int.init) ?? 7))
        var closed = 0, looked = 0, runs = 0
        for round in 0..<(25_000 * soak) {
            var player = Player(random: SplitMix(random.next()))
            let program = try LoadedProgram.bare(player.program(), maps: [map], sandboxed: true, isVerified: true)
            for _ in 0..<4 {
                var frame = Frame()
                frame.isUDP = Bool.random(using: &random)
                frame.options = [0, 0, 4, 8].randomElement(using: &random)!
                frame.vlans = Int.random(in: 0..<5, using: &random) == 0 ? [5] : []
                frame.payload = (0..<Int.random(in: 90...130, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                let finished = frame.bytes, at = frame.l4Offset + (frame.isUDP ? 6 : 16)
                var seeded = finished
                let l4Length = finished.count - frame.l4Offset
                let seed = Frame.big(UInt16(Frame.sum(frame.source + frame.destination + [0, frame.isUDP ? 17 : 6] + Frame.big(UInt16(l4Length)))))
                seeded.replaceSubrange(at..<(at + 2), with: seed)
                let a = run(program, seeded, finishing: (at, Array(finished[at..<(at + 2)])))
                let b = run(program, finished, finishing: nil)
                check(program.analysis, a.effect, "program \(round)")
                runs += 1
                if a.effect.looked { looked += 1 } else { closed += 1 }
                var (x, y) = (a.bytes, b.bytes)
                let place = at - Int(a.effect.headDelta)
                if !a.effect.looked, x.count == y.count, place >= 0, place + 2 <= x.count { for i in place..<(place + 2) { x[i] = 0; y[i] = 0 } }
                let same = a.effect.verdict == b.effect.verdict && a.effect.fault == b.effect.fault && x == y && a.map == b.map
                try #require(same, "program \(round), reads \(program.analysis.reads), completed before \(program.analysis.completions):\n\(player.code.enumerated().map { "\($0.offset): \($0.element)" }.joined(separator: "\n"))\n\(frame)")
            }
        }
        #expect(closed > runs / 10 && looked > runs / 20, "\(runs) runs, \(looked) looked")
    }

    /// One for all runs, by one test: unverified programs may show the packet's address.
    nonisolated(unsafe) private static let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1024, alignment: 64)

    private func run(_ program: LoadedProgram, _ packet: [UInt8], finishing: (at: Int, bytes: [UInt8])?) -> (effect: Effect, bytes: [UInt8], map: [UInt8]?) {
        let headroom = 256
        let buffer = unsafe AnalysisSoundnessTests.buffer
        _ = unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[headroom...]).copyBytes(from: packet)
        let start = unsafe buffer.baseAddress!
        var context = unsafe XDPContext(data: start + headroom, dataEnd: start + headroom + packet.count, dataMeta: start + headroom,
                                        bufferStart: start, bufferEnd: start + buffer.count)
        _ = try? program.map(named: "m")?.update([0, 0, 0, 0], [UInt8](repeating: 0, count: 16))
        var effect = Effect()
        withExtendedLifetime(program) {
            if let finishing {
                let finisher = unsafe Finisher(start + headroom, finishing.at, finishing.bytes)
                unsafe context.unfinished = UnfinishedChecksum(field: finishing.at, isOpaque: false, complete: { argument in
                    let finisher = unsafe Unmanaged<Finisher>.fromOpaque(argument).takeUnretainedValue()
                    for (i, byte) in finisher.bytes.enumerated() { unsafe finisher.frame.storeBytes(of: byte, toByteOffset: finisher.at + i, as: UInt8.self) }
                }, argument: Unmanaged.passUnretained(finisher).toOpaque())
                withExtendedLifetime(finisher) { effect = unsafe program.interpreter.run(&context) }
            } else {
                effect = unsafe program.interpreter.run(&context)
            }
        }
        let from = unsafe context.data - start, to = unsafe context.dataEnd - start
        return (effect, unsafe Array(buffer[from..<to]), try? program.map(named: "m")?.lookup([0, 0, 0, 0]))
    }
}

private extension Analysis {
    /// Whether these bytes may have been written.
    func mayWrite(_ written: WrittenBytes) -> Bool {
        if limit != nil || writesElsewhere { return true }
        let ranges = stores.map(\.fromData) + adjustments.map(\.grown)
        func reaches(_ from: Int, _ to: Int) -> Bool { ranges.contains { !$0.isEmpty && Int($0.lower) < to && from < Int($0.upper) } }
        let isKnown = (0..<WrittenBytes.window).allSatisfy { written.first & 1 << UInt64($0) == 0 || reaches($0, $0 + 1) }
        let (lowest, highest) = (-Int(written.before), Int(written.restUpper))
        return isKnown && (lowest == 0 || reaches(lowest, lowest + 1))
            && (highest == 0 || reaches(highest - 1, highest) && reaches(Int(written.restLower), Int(written.restLower) + 1))
    }
}
