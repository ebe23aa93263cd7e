import CBPF
import Foundation
import Testing

@testable import EBPF

/// `verify = sandbox`: whatever the bytes are, no access outside of packet, stack, maps and context, and an end.
///
/// The packet lies against pages nobody may touch, first in front and then behind, and every map's links are checked
/// afterwards: an escape is a crash of this process or a map that no longer works.
@Suite(.timeLimit(.minutes(FuzzTests.number("APUS_SANDBOX_RUNS", 0) > 0 ? 600 : 30))) struct SandboxTests {
    static let definitions: [MapDefinition] = [
        MapDefinition(name: "array", type: 2, keySize: 4, valueSize: 13, maxEntries: 5, flags: 0),
        MapDefinition(name: "hash", type: 1, keySize: 4, valueSize: 9, maxEntries: 7, flags: 0),
        MapDefinition(name: "lru", type: 9, keySize: 4, valueSize: 8, maxEntries: 7, flags: 0),
        MapDefinition(name: "own", type: 6, keySize: 4, valueSize: 8, maxEntries: 3, flags: 0),
        MapDefinition(name: "trie", type: 11, keySize: 8, valueSize: 8, maxEntries: 6, flags: 1),
        MapDefinition(name: "queue", type: 22, keySize: 0, valueSize: 8, maxEntries: 3, flags: 0),
        MapDefinition(name: "ring", type: 27, keySize: 0, valueSize: 0, maxEntries: 4096, flags: 0),
        MapDefinition(name: "devices", type: 14, keySize: 4, valueSize: 4, maxEntries: 4, flags: 0),
        MapDefinition(name: "events", type: 4, keySize: 4, valueSize: 4, maxEntries: 2, flags: 0),
    ]

    /// A page with nothing in front and nothing behind.
    final class Guarded {
        static let page = 4096
        let base: UnsafeMutableRawPointer

        init() {
            unsafe base = mmap(nil, 3 * Guarded.page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
            unsafe mprotect(base + Guarded.page, Guarded.page, PROT_READ | PROT_WRITE)
        }

        deinit { unsafe munmap(base, 3 * Guarded.page) }

        /// Runs on a packet at the page's start or end, without room around it.
        func run(_ program: LoadedProgram, _ packet: [UInt8], atEnd: Bool, engine: Engine = .interpreter) -> Effect {
            let start = unsafe base + Guarded.page + (atEnd ? Guarded.page - packet.count : 0)
            unsafe UnsafeMutableRawBufferPointer(start: start, count: packet.count).copyBytes(from: packet)
            var context = unsafe XDPContext(data: start, dataEnd: start + packet.count, dataMeta: start, bufferStart: start,
                                            bufferEnd: start + packet.count, ingressIndex: 1)
            return withExtendedLifetime(program) { unsafe engine == .compiled ? program.runner.run(&context) : program.interpreter.run(&context) }
        }
    }

    /// Maps work as before: what is in them can be listed, and a new entry found again.
    static func checkMaps(_ program: LoadedProgram) throws {
        for map in program.maps where [1, 9, 11].contains(map.definition.type) {
            let key = map.definition.type == 11 ? [32, 0, 0, 0, 1, 2, 3, 4] : [UInt8](repeating: 9, count: map.definition.keySize)
            let value = [UInt8](repeating: 3, count: map.definition.valueSize)
            try #require(map.entries().count <= map.definition.maxEntries && map.count <= map.definition.maxEntries)
            if map.count == map.definition.maxEntries, let first = map.entries().first { try map.delete(first.key) }
            try map.update(key, value)
            try #require(try map.lookup(key) == value)
            try map.delete(key)
        }
    }

    /// Instructions that mostly decode: registers there are, jumps that stay inside, helpers and maps that exist.
    static func random(_ count: Int, _ random: inout SplitMix) -> [Instruction] {
        let helpers: [Int32] = [1, 2, 3, 5, 6, 7, 8, 12, 23, 25, 28, 44, 51, 54, 65, 87, 88, 89, 93, 94, 105, 130, 131, 132, 133, 134, 164, 165, 177, 181, 182, 188, 189, 190, 195, 204, 206]
        var code: [Instruction] = []
        while code.count < count {
            let d = UInt8.random(in: 0...10, using: &random), s = UInt8.random(in: 0...10, using: &random)
            let offset = ([0, 0, 4, 8, -8, -16, -512, 14, 60, 2000] as [Int16]).randomElement(using: &random)!
            let immediate = ([0, 1, 2, 4, 8, 14, 64, -1, .max, .min] as [Int32]).randomElement(using: &random)!
            switch Int.random(in: 0..<12, using: &random) {
            case 0, 1: code.append(Asm.alu([0xbf, 0x0f, 0x1f, 0x07, 0xb7, 0xbf, 0x57, 0xcc, 0x67].randomElement(using: &random)!, d, s, imm: immediate))
            case 2, 3: code.append(Asm.load([Asm.byte, Asm.half, Asm.word, Asm.double].randomElement(using: &random)!, d, s, offset))
            case 4, 5: code.append(Asm.store([Asm.byte, Asm.half, Asm.word, Asm.double].randomElement(using: &random)!, d, offset, s))
            case 6: code.append(Asm.atomic(Bool.random(using: &random), [0, 0x40, 0x01, 0xe1, 0xf1].randomElement(using: &random)!, d, offset, s))
            case 7: code.append(Asm.call(helpers.randomElement(using: &random)!))
            case 8 where code.count + 2 <= count:
                let isValue = Int.random(in: 0..<6, using: &random) == 0
                let map = isValue ? 0 : Int32.random(in: 0..<Int32(definitions.count), using: &random)
                code.append(Instruction(opcode: 0x18, destination: d, source: isValue ? 2 : 1, immediate: map))
                code.append(Instruction(opcode: 0, immediate: isValue ? immediate & 7 : 0))
            case 9: code.append(Instruction(opcode: [0x05, 0x15, 0x2d, 0xa5, 0x6d].randomElement(using: &random)!, destination: d, source: s,
                                            offset: Int16.random(in: Int16(-code.count - 1)...Int16(max(0, count - code.count - 1)), using: &random), immediate: immediate))
            case 10: code.append(Int.random(in: 0..<3, using: &random) == 0 ? Asm.exit : Asm.load(Asm.word, d, 1, [0, 4, 8].randomElement(using: &random)!))
            default: code.append(Asm.mov(d, imm: immediate))
            }
        }
        return code + [Asm.mov(0, imm: 2), Asm.exit]
    }

    static let start: [Instruction] = [
        Asm.mov(6, 1), Asm.load(Asm.word, 7, 1, 0), Asm.load(Asm.word, 8, 1, 4), Asm.mov(9, 7), Asm.mov(2, 10), Asm.alu(0x07, 2, imm: -16), Asm.mov(3, 2),
        Asm.mov(4, imm: 0), Asm.mov(5, imm: 0), Asm.store(Asm.double, 10, -16, imm: 1),
    ]

    @Test func randomInstructions() throws {
        let count = Int(ProcessInfo.processInfo.environment["APUS_SANDBOX_RUNS"] ?? "") ?? 8000
        var random = SplitMix(4711)
        let guarded = Guarded()
        var faults: [Fault: Int] = [:], refused = 0, wrote = 0
        for number in 0..<count {
            // Arguments a helper may like: a context, maps, and pointers to the stack.
            let code = SandboxTests.start + SandboxTests.random(Int.random(in: 4...40, using: &random), &random)
            let program: LoadedProgram
            do throws(LoadError) {
                program = try LoadedProgram.bare(code, maps: SandboxTests.definitions, sandboxed: true)
            } catch {
                refused += 1
                continue
            }
            if let events = program.map(named: "events"), number % 2 == 0 { #expect(events.openEvents(bytes: 4096)) }
            for pass in 0..<2 {
                let packet = (0..<Int.random(in: 14...100, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                let effect = guarded.run(program, packet, atEnd: pass == 1)
                faults[effect.fault, default: 0] += 1
                if effect.fault != .none { try #require(effect.verdict == .aborted) }
                if effect.wrote { wrote += 1 }
            }
            try SandboxTests.checkMaps(program)
            _ = program.map(named: "ring")?.nextRecord()
        }
        print("sandbox: \(count) programs, \(refused) refused, runs by end: \(faults), \(wrote) wrote to the packet")
        #expect(faults[.none, default: 0] > count / 50 && faults[.access, default: 0] > count / 4 && faults[.budget, default: 0] > 0)
        #expect(wrote > count / 100)
    }

    /// Real programs with bits flipped: far into themselves before they go wrong.
    @Test func mutatedPrograms() throws {
        var random = SplitMix(99), traffic = Traffic(seed: 9)
        let guarded = Guarded()
        var faults: [Fault: Int] = [:], refused = 0
        let linked = try ProgramTests.names.map { try ProgramLoader.link(object: try Objects.program($0), program: nil).0 }
        for number in 0..<3000 {
            let original = linked[number % linked.count]
            var code = original.instructions
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let at = Int.random(in: 0..<code.count, using: &random)
                switch Int.random(in: 0..<5, using: &random) {
                case 0: code[at].opcode ^= 1 << UInt8.random(in: 0..<8, using: &random)
                case 1: code[at].registers ^= 1 << UInt8.random(in: 0..<8, using: &random)
                case 2: code[at].offset ^= 1 << Int16.random(in: 0..<15, using: &random)
                case 3: code[at].immediate ^= 1 << Int32.random(in: 0..<31, using: &random)
                default: code[at] = code[Int.random(in: 0..<code.count, using: &random)]
                }
            }
            let program: LoadedProgram
            do throws(LoadError) {
                program = try LoadedProgram.bare(code, maps: original.maps, sandboxed: true)
            } catch {
                refused += 1
                continue
            }
            for pass in 0..<6 {
                let effect = guarded.run(program, Array(traffic.next().prefix(4096)), atEnd: pass % 2 == 1)
                faults[effect.fault, default: 0] += 1
            }
            try SandboxTests.checkMaps(program)
        }
        print("sandbox: 3000 mutated programs, \(refused) refused, runs by end: \(faults)")
        #expect(faults[.none, default: 0] > 2500 && faults[.access, default: 0] > 250)
    }

    /// Each thing a program must not do, alone; and beside it what it may.
    @Test(arguments: [
        ("reads behind the packet", [Asm.load(Asm.word, 6, 1, 0), Asm.load(Asm.byte, 0, 6, 60)], Fault.access),
        ("reads the last byte", [Asm.load(Asm.word, 6, 1, 0), Asm.load(Asm.byte, 0, 6, 59)], .none),
        ("reads across the end", [Asm.load(Asm.word, 6, 1, 0), Asm.load(Asm.word, 0, 6, 57)], .access),
        ("reads in front of the packet", [Asm.load(Asm.word, 6, 1, 0), Asm.load(Asm.byte, 0, 6, -1)], .access),
        ("wraps around", [Asm.mov(6, imm: -1), Asm.load(Asm.double, 0, 6, 0)], .access),
        ("writes to the context", [Asm.store(Asm.word, 1, 0, imm: 1)], .access),
        ("reads the context by bytes", [Asm.load(Asm.byte, 0, 1, 0)], .access),
        ("reads behind the context", [Asm.load(Asm.word, 0, 1, 24)], .access),
        ("reads its stack", [Asm.load(Asm.double, 0, 10, -512)], .none),
        ("reads below its stack", [Asm.load(Asm.double, 0, 10, -520)], .access),
        ("reads above its stack", [Asm.load(Asm.byte, 0, 10, 0)], .access),
        ("misaligned atomic", [Asm.mov(2, imm: 1), Asm.atomic(true, 0, 10, -12, 2)], .access),
        ("a map that is none", [Asm.mov(1, 10), Asm.mov(2, 10), Asm.call(1)], .access),
        ("a key outside", [Instruction(opcode: 0x18, destination: 1, source: 1, immediate: 0), Instruction(opcode: 0), Asm.mov(2, imm: 0), Asm.call(1)], .access),
        ("a map's description", [Instruction(opcode: 0x18, destination: 1, source: 1, immediate: 0), Instruction(opcode: 0), Asm.load(Asm.double, 0, 1, 0)], .access),
        ("a value's padding", [Instruction(opcode: 0x18, destination: 1, source: 2, immediate: 0), Instruction(opcode: 0), Asm.load(Asm.byte, 0, 1, 13)], .access),
        ("a value", [Instruction(opcode: 0x18, destination: 1, source: 2, immediate: 0), Instruction(opcode: 0), Asm.load(Asm.byte, 0, 1, 12)], .none),
        ("no end", [Instruction(opcode: 0x05, offset: -1)], .budget),
        ("no bottom", [Asm.callLocal(-1)], .depth),
        ("a lock that is none", [Asm.mov(1, 10), Asm.alu(0x07, 1, imm: -8), Asm.call(93)], .access),
        ("a record that is none", [Asm.mov(1, 10), Asm.alu(0x07, 1, imm: -8), Asm.mov(2, imm: 0), Asm.call(132)], .access),
        ("a sum over too much", [Asm.load(Asm.word, 1, 1, 0), Asm.mov(2, imm: 64), Asm.mov(3, imm: 0), Asm.mov(4, imm: 0), Asm.mov(5, imm: 0), Asm.call(28)], .access),
        ("a load of too much", [Asm.mov(2, imm: 0), Asm.mov(3, 10), Asm.alu(0x07, 3, imm: -8), Asm.mov(4, imm: 16), Asm.call(189)], .access),
    ] as [(String, [Instruction], Fault)])
    func limits(_ name: String, _ code: [Instruction], _ fault: Fault) throws {
        let program = try LoadedProgram.bare(code + [Asm.mov(0, imm: 2), Asm.exit], maps: SandboxTests.definitions, sandboxed: true)
        let guarded = Guarded(), code = try Twins.compiler.get().compile(program)
        for engine in [Engine.interpreter, .compiled] {
            for atEnd in [false, true] {
                let effect = guarded.run(program, [UInt8](repeating: 7, count: 60), atEnd: atEnd, engine: engine)
                #expect(effect.fault == fault && effect.verdict == (fault == .none ? .pass : .aborted), "\(engine)")
            }
        }
        code.retire()
    }
}

/// What the kernel's rules for XDP say about packet pointers in helpers' arguments, the sandbox says while it runs.
@Suite struct SandboxPacketTests {
    struct Case: CustomStringConvertible {
        let description: String
        /// With r6 the context and r7 a packet of which 16 bytes are there; r8 a stack of 16 bytes.
        let body: [Instruction]
    }

    private static func map(_ map: FuzzMap) -> [Instruction] { FuzzTargets.map(1, map) }

    static let cases: [Case] = [
        Case(description: "a key to look up", body: map(.hash) + [Asm.mov(2, 7), Asm.call(1)]),
        Case(description: "a key to look up for a CPU", body: map(.ownHash) + [Asm.mov(2, 7), Asm.mov(3, imm: 0), Asm.call(195)]),
        Case(description: "a key to set", body: map(.hash) + [Asm.mov(2, 7), Asm.mov(3, 8), Asm.mov(4, imm: 0), Asm.call(2)]),
        Case(description: "a value to set", body: map(.hash) + [Asm.mov(2, 8), Asm.mov(3, 7), Asm.mov(4, imm: 0), Asm.call(2)]),
        Case(description: "a key to delete", body: map(.hash) + [Asm.mov(2, 7), Asm.call(3)]),
        Case(description: "a value to push", body: map(.queue) + [Asm.mov(2, 7), Asm.mov(3, imm: 0), Asm.call(87)]),
        Case(description: "a place to pop to", body: map(.queue) + [Asm.mov(2, 7), Asm.call(88)]),
        Case(description: "a place to peek to", body: map(.queue) + [Asm.mov(2, 7), Asm.call(89)]),
        Case(description: "a record", body: map(.ring) + [Asm.mov(2, 7), Asm.mov(3, imm: 8), Asm.mov(4, imm: 0), Asm.call(130)]),
        Case(description: "an event", body: [Asm.mov(1, 6)] + FuzzTargets.map(2, .events) + [Asm.mov(3, imm: 0), Asm.mov(4, 7), Asm.mov(5, imm: 8), Asm.call(25)]),
        Case(description: "bytes to sum", body: [Asm.mov(1, 7), Asm.mov(2, imm: 8), Asm.mov(3, 7), Asm.mov(4, imm: 4), Asm.mov(5, imm: 0), Asm.call(28)]),
        Case(description: "a number's text", body: [Asm.mov(1, 7), Asm.mov(2, imm: 8), Asm.mov(3, imm: 0), Asm.mov(4, 8), Asm.call(105)]),
        Case(description: "a number's place", body: [Asm.mov(1, 8), Asm.mov(2, imm: 8), Asm.mov(3, imm: 0), Asm.mov(4, 7), Asm.call(106)]),
        Case(description: "a place to load to", body: [Asm.mov(1, 6), Asm.mov(2, imm: 0), Asm.mov(3, 7), Asm.mov(4, imm: 8), Asm.call(189)]),
        Case(description: "bytes to store", body: [Asm.mov(1, 6), Asm.mov(2, imm: 0), Asm.mov(3, 7), Asm.mov(4, imm: 8), Asm.call(190)]),
        Case(description: "text to print", body: [Asm.mov(1, 7), Asm.mov(2, imm: 8), Asm.call(6)]),
    ]

    @Test func asTheKernelSays() throws {
        let kernel = try FuzzKernel(), sandbox = FuzzRuntime(isSandboxed: true)
        var taken = 0, refused = 0
        for test in SandboxPacketTests.cases {
            let start = [Asm.mov(6, 1), Asm.load(Asm.word, 7, 1, 0), Asm.load(Asm.word, 3, 1, 4), Asm.mov(2, 7), Asm.alu(0x07, 2, imm: 16),
                         Asm.alu(0xbd, 2, 3, offset: 2), Asm.mov(0, imm: 0), Asm.exit, Asm.mov(8, 10), Asm.alu(0x07, 8, imm: -16),
                         Asm.store(Asm.double, 10, -16, imm: 0x3131), Asm.store(Asm.double, 10, -8, imm: 0)]
            let program = FuzzProgram(code: start + test.body + [Asm.mov(0, imm: 2), Asm.exit], packets: [[UInt8](repeating: 0x31, count: 60)])
            let fd = try? kernel.load(program)
            if let fd { apus_close(fd) }
            let outcome = try? sandbox.observe(program)
            #expect((fd != nil) == (outcome != nil), "\(test): the kernel \(fd != nil ? "takes" : "refuses") it")
            if fd != nil { taken += 1 } else { refused += 1 }
        }
        #expect(taken >= 6 && refused >= 6)
    }
}
