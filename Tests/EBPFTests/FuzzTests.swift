import CBPF
import Foundation
import Testing

@testable import EBPF

/// The interpreter and compiled code, trusting and sandboxed, against the kernel, over programs nobody thought of.
///
/// `APUS_FUZZ_PROGRAMS` and `APUS_FUZZ_SEED` make it longer and different (`make soak`); every `APUS_FUZZ_COMPILED`-th
/// program is compiled. What fails is shrunk and kept
/// in Tests/Fixtures/fuzz, and replayed from then on.
@Suite(.timeLimit(.minutes(600))) struct FuzzTests {
    static func number(_ name: String, _ otherwise: Int) -> Int { Int(ProcessInfo.processInfo.environment[name] ?? "") ?? otherwise }

    @Test func agreesWithTheKernel() throws {
        let count = FuzzTests.number("APUS_FUZZ_PROGRAMS", 100_000), first = UInt64(FuzzTests.number("APUS_FUZZ_SEED", 1))
        let stride = FuzzTests.number("APUS_FUZZ_COMPILED", 200)
        let campaign = try FuzzCampaign(engines: FuzzEngines.judged(compilingEvery: UInt64(stride)))
        campaign.run(first..<(first + UInt64(count)))
        print(campaign.report)
        for (reason, times) in campaign.refusals.sorted(by: { $0.value > $1.value }).prefix(12) { print("  refused \(times): \(reason)") }
        print(campaign.histogram.table)
        for difference in campaign.differences {
            try FuzzCampaign.keep("seed\(difference.seed)-\(difference.engine)", difference)
            Issue.record("seed \(difference.seed), \(difference.engine): \(difference.what)\n\(FuzzText.write(difference.program, remarks: []))")
        }
        #expect(campaign.accepted * 10 >= campaign.tried * 7, "\(campaign.report)")
        #expect(campaign.poor == 0, "\(campaign.poor) programs lack a packet access, a map operation or a branch")
        if count >= 20_000 {
            let empty = campaign.histogram.empty.map { "\(FuzzText.name($0.row)) on \($0.columnName)" }
            #expect(empty.isEmpty, "\(empty)")
        }
    }

    @Test func keptCasesAgree() throws {
        let kernel = try FuzzKernel()
        let pinned = unsafe apus_twin_pin()
        defer { unsafe apus_twin_unpin(pinned) }
        let kept = try FuzzCampaign.kept()
        #expect(!kept.isEmpty)
        for (name, program) in kept {
            let truth = try kernel.observe(program)
            for engine in FuzzEngines.judged() {
                let what = FuzzCampaign.disagreement(engine, program, truth)
                #expect(what == nil, "\(name), \(engine.name)")
            }
        }
    }

    /// What the fuzzer found out about the kernel, and steers around since (`FuzzGenerator.blur`): Linux 6.18 takes what a
    /// fetching atomic finds in a known stack slot for a constant, does not remember that it counted on it, and so takes
    /// the way on which a callback changed the slot for one it has seen. Worked out by hand: the callback stores 63, the
    /// exchange answers with it, and 63 is more than 1.
    @Test func whereTheKernelErrs() throws {
        func loop(_ function: Int32) -> [Instruction] {
            [Asm.mov(3, 10), Asm.alu(0x07, 3, imm: -16), Asm.mov(1, imm: 2), Instruction(opcode: 0x18, destination: 2, source: PseudoSource.function, immediate: function),
             Instruction(opcode: 0), Asm.mov(4, imm: 0), Asm.call(181)]
        }
        // The second loop only gives the verifier a place to compare what it knows.
        let program = [Asm.store(Asm.double, 10, -16, imm: 0)] + loop(16) + loop(12)
            + [Asm.mov(0, imm: 5), Asm.atomic(false, 0xf1, 10, -16, 0), Instruction(opcode: 0xb6, destination: 0, offset: 1, immediate: 1), Asm.exit, Asm.mov(0, imm: 7), Asm.exit]
            + [Asm.store(Asm.double, 2, 0, imm: 63), Asm.mov(0, imm: 0), Asm.exit, Asm.mov(0, imm: 0), Asm.exit]
        let case1 = FuzzProgram(code: program, packets: [[UInt8](repeating: 0, count: 60)])
        #expect(try FuzzRuntime(isSandboxed: false).observe(case1).runs[0].r0 == 63)
        print("a slot that a callback changed, by the kernel: \((try? FuzzKernel().observe(case1).runs[0].r0).map(String.init) ?? "refused"), by hand: 63")
    }

    /// A compare-and-exchange of 32 bits that exchanges: what was found is zero-extended into r0 (RFC 9669 section 5.3). On
    /// x86-64 the machine leaves the upper half as it was, and the verifier has to add an instruction that clears it. Linux
    /// 6.18 forgets to where the only reader of that half lies behind a place it has already been to.
    @Test func whereTheKernelLeavesTheUpperHalf() throws {
        let value = Int32(FuzzMap.global.rawValue)
        func program(_ cleared: [Instruction]) -> FuzzProgram {
            let code = [Asm.mov(5, imm: 0), Asm.load(Asm.word, 3, 1, 4), Instruction(opcode: 0x2d, destination: 5, source: 3),
                        Instruction(opcode: 0x18, destination: 2, source: PseudoSource.mapValue, immediate: value), Instruction(opcode: 0),
                        Asm.store(Asm.double, 2, 0, imm: -1), Asm.mov(4, imm: 0), Asm.mov(0, imm: -1), Asm.atomic(false, 0xf1, 2, 0, 4)] + cleared
                + [Instruction(opcode: 0x56, destination: 0, offset: 1), Instruction(opcode: 0x64, destination: 0),
                   Asm.mov(1, 0), Asm.alu(0x77, 1, imm: 1), Asm.alu(0xaf, 0, 1), Asm.exit]
            return FuzzProgram(code: code, packets: [[UInt8](repeating: 0, count: 60)])
        }
        let right: UInt32 = 0xffff_ffff ^ 0x7fff_ffff
        for engine in [FuzzRuntime(isSandboxed: false), FuzzRuntime(isSandboxed: true), FuzzRuntime(.compiled, isSandboxed: false), FuzzRuntime(.compiled, isSandboxed: true)] {
            #expect(try engine.observe(program([])).runs[0].r0 == right, "\(engine.name)")
        }
        // With the half cleared by hand there is nothing to forget.
        #expect(try FuzzKernel().observe(program([Asm.alu(0xbc, 0, 0)])).runs[0].r0 == right)
        print("the upper half behind a compare-and-exchange, by the kernel: \((try? FuzzKernel().observe(program([])).runs[0].r0).map { String($0, radix: 16) } ?? "refused"), by RFC 9669: \(String(right, radix: 16))")
    }

    @Test func textIsReadBack() throws {
        var generator = FuzzGenerator(seed: 12)
        let program = generator.next().program
        #expect(try FuzzText.read(FuzzText.write(program, remarks: ["a remark"])) == program)
        #expect(throws: FuzzText.Unreadable.self) { try FuzzText.read("code 00\n") }
        // The same seed is the same program.
        var again = FuzzGenerator(seed: 12)
        #expect(again.next().program == program)
    }

    /// Jumps and calls over what is taken out go where they went.
    @Test func shrinkingMendsJumps() {
        let code = [Instruction(opcode: 0x15, offset: 3), Asm.mov(1, imm: 1), Asm.mov(2, imm: 2), Asm.callLocal(2), Asm.exit,
                    Instruction(opcode: 0x06, immediate: -6), Asm.mov(0, imm: 0), Asm.exit]
        let less = FuzzShrinker.without(1..<3, code)
        #expect(less == [Instruction(opcode: 0x15, offset: 1), Asm.callLocal(2), Asm.exit, Instruction(opcode: 0x06, immediate: -4), Asm.mov(0, imm: 0), Asm.exit])
        #expect(FuzzShrinker.without(1..<2, Asm.load64(1, 5) + [Asm.exit]) == nil)
    }
}
