import CBPF
import Testing

@testable import Compiler
@testable import EBPF

/// The compiler's planted bugs, looked for by the differential fuzzer itself: the kernel against compiled code, over
/// programs in which the broken rule can matter. Sandboxed, because some bugs make wild pointers of good ones.
@Suite(.serialized, .timeLimit(.minutes(30))) struct FuzzPlantedCompilerTests {
    /// What no program that the kernel takes, and nothing it gives back, can show. `PlantedCompilerTests` finds each.
    static let unseen: [TranslationBug: String] = [
        .noTracking: "which bytes were written is Apus's own notion: the packet, the maps and r0 are as they should be",
        .groupedWrites: "the same",
        .farWrites: "the same",
        .repeatedWrites: "the same",
        .noLook: "looking at a checksum counts only for unfinished packets, which BPF_PROG_TEST_RUN has none of",
        .noBoundsCheck: "what the verifier took never leaves its bounds",
        .lruUse: "whom an LRU map evicts is the kernel's own affair, so the fuzzer's has room for all",
        .hashRest: "the fuzzer's keys are whole words; the rest of one is of keys that are not",
        .headDelta: "the effect alone says how far the head moved; the packet begins where it should",
        .redirectFlags: "translated so in trusted code alone, and this search runs sandboxed",
        .eventSilence: "translated so in trusted code alone, and this search runs sandboxed",
        .staleMachine: "the sandbox fills the machine for every packet",
        .emptyTarget: "the fuzzer's containers of targets are looked up by bpf_redirect_map alone",
    ]

    /// As many are compiled for one bug at most.
    private static let programsMax = 250

    @Test(arguments: TranslationBug.allCases.filter { unseen[$0] == nil }) func isFound(_ bug: TranslationBug) throws {
        let campaign = try FuzzCampaign(engines: [FuzzRuntime(.compiled, isSandboxed: true, planted: bug)], isShrinking: false)
        campaign.run(1..<1_000_000, differencesMax: 1, triedMax: FuzzPlantedCompilerTests.programsMax) { program in
            program.code.indices.contains { FuzzPlantedCompilerTests.matters(bug, program, $0) }
        }
        let found = try #require(campaign.differences.first, "\(bug) is not found in \(campaign.tried) programs")
        print("planted \(bug): found by program \(campaign.tried) of those it matters to, seed \(found.seed): \(found.what.prefix(120))")
        // It is the bug that differs: without it there is none.
        let pinned = unsafe apus_twin_pin()
        defer { unsafe apus_twin_unpin(pinned) }
        let truth = try FuzzKernel().observe(found.program)
        #expect(FuzzCampaign.disagreement(FuzzRuntime(.compiled, isSandboxed: true), found.program, truth) == nil)
    }

    @Test func twentyAreSeen() {
        #expect(TranslationBug.allCases.count - FuzzPlantedCompilerTests.unseen.count >= 20)
        for (bug, reason) in FuzzPlantedCompilerTests.unseen.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            print("planted \(bug): not to be seen by the fuzzer: \(reason)")
        }
    }

    /// Whether the instruction is one that the broken rule translates.
    private static func matters(_ bug: TranslationBug, _ program: FuzzProgram, _ at: Int) -> Bool {
        let i = program.code[at], kind = i.opcode & 0xf0
        let isALU = i.instructionClass == 4 || i.instructionClass == 7, isJump = i.instructionClass == 5 || i.instructionClass == 6
        let byRegister = i.opcode & 8 != 0, isAtomic = i.opcode & 0xe7 == 0xc3
        func calls(_ helper: Int32) -> Bool { i.isHelperCall && i.immediate == helper }
        /// What was put into a register just before.
        func isNumber(_ register: UInt8, _ holds: (Int32) -> Bool) -> Bool {
            program.code[max(0, at - 4)..<at].contains { $0.destination == register && $0.opcode == 0xb7 && holds($0.immediate) }
        }
        switch bug {
        case .unsignedAtLeast: return isJump && kind == 0x30
        case .signedAbove: return isJump && kind == 0x60
        case .signExtend32: return i.instructionClass == 4 && kind <= 0xc0
        case .moveSigned32: return i.opcode == 0xbf && i.offset == 32
        case .unmaskedShift: return isALU && byRegister && [0x60, 0x70, 0xc0].contains(kind)
        case .logicalShift: return isALU && kind == 0xc0
        case .divisionByZero: return isALU && byRegister && kind == 0x30 && i.offset == 0
        case .remainderByZero: return isALU && byRegister && kind == 0x90 && i.offset == 0
        case .keepsUpperHalf: return isALU && kind == 0xd0 && i.immediate == 16
        case .loadSigned: return i.opcode & 0xe7 == 0x81
        case .contextEnd: return calls(65)
        case .compareExchangeTarget: return isAtomic && i.immediate == 0xf1
        case .noFetch: return isAtomic && i.immediate & 1 == 1 && i.immediate != 0xf1
        case .arrayBound: return calls(1) && !program.maps.isDisjoint(with: [.array, .own, .inner])
        case .hashSeed: return calls(1) && !program.maps.isDisjoint(with: [.hash, .ownHash, .lru])
        // "again" is in slot 1; an even slot is another's where only one bit counts.
        case .tailCallLimit: return calls(12) && isNumber(3) { $0 == 1 }
        case .tailCallIndex: return calls(12) && isNumber(3) { $0 >= 2 }
        case .checksumSeed: return calls(28)
        case .calleeFrame: return i.isLocalCall
        case .loopCount: return calls(181)
        // FuzzGenerator.callBack lends it so.
        case .contextInMemory: return i.opcode == 0x79 && i.destination == 5 && i.offset == -8
        case .verdict: return i.opcode == 0x95
        case .noTracking, .groupedWrites, .farWrites, .repeatedWrites, .noLook, .noBoundsCheck, .lruUse, .hashRest, .headDelta: return false
        case .redirectFlags, .eventSilence, .staleMachine, .emptyTarget: return false
        }
    }
}
