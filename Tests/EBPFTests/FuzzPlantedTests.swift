#if APUS_PLANTED
import CBPF
import Foundation
import Testing

@testable import EBPF

/// Twenty-six bugs in the interpreter, its maps and its helpers; the fuzzer finds each, and so does a case that was kept
/// when it was found (with `APUS_FUZZ_KEEP` set, `isFound` writes them). The engine runs as a sandbox: some bugs make wild
/// pointers of good ones, and this process is to live.
///
/// | bug | what is wrong |
/// | --- | --- |
/// | divideByZero | a quotient by 0 is the dividend |
/// | signedOverflow | the lowest number divided by -1 is 0 |
/// | signedRemainder | a negative dividend is its own remainder |
/// | remainderUpperHalf | the 32-bit remainder by 0 keeps the upper half |
/// | wideShift | a shift by 64 or more is not taken modulo 64 |
/// | arithmeticShiftSign | the 32-bit arithmetic shift shifts zeros in |
/// | signExtension | 16 bits are extended with zeros |
/// | signExtensionUpperHalf | 8 bits extended to 32 reach the upper half |
/// | swapUpperHalf | a swap of 16 bits leaves the others |
/// | immediateSign | immediates are extended with zeros |
/// | storeImmediateSign | the same where 64 bits are stored |
/// | loadSign | a signed load of 32 bits is not |
/// | bitTestWidth | a 32-bit test looks at 64 |
/// | signedComparison | signed "less or equal" is "less" |
/// | fetchNew | fetching "or" answers with the new value |
/// | exchangeKeepsUpperHalf | a 32-bit exchange leaves the register's upper half |
/// | compareAlways | compare-and-exchange does not compare |
/// | calleeSaved | r9 is not restored after a call |
/// | calleeFrame | a function gets its caller's frame |
/// | loopCount | `bpf_loop` counts one round less |
/// | tailCallLimit | 32 tail calls instead of 33 |
/// | updateFlag | a hash takes BPF_NOEXIST for BPF_ANY |
/// | longestPrefix | the trie answers with the shortest prefix |
/// | sumCarry | `bpf_csum_diff` loses a carry |
/// | headMetadata | `bpf_xdp_adjust_head` leaves metadata behind |
/// | tailContents | a tail that was cut off comes back |
@Suite(.serialized, .timeLimit(.minutes(60))) struct FuzzPlantedTests {
    /// Where the search begins for bugs that few programs show: from 1 on, the first takes 19 673 programs and the second
    /// 14 320, two thirds of the whole suite's time; no other takes 1 700.
    private static let firstSeeds: [EngineBug: UInt64] = [.signedOverflow: 19_000, .tailContents: 14_000]

    @Test(arguments: EngineBug.allCases) func isFound(_ bug: EngineBug) throws {
        EngineBug.plant(bug)
        defer { EngineBug.plant(nil) }
        let isKept = ProcessInfo.processInfo.environment["APUS_FUZZ_KEEP"] != nil
        let engine = FuzzRuntime(isSandboxed: true)
        let campaign = try FuzzCampaign(engines: [engine], isShrinking: isKept) { program, truth in
            // An address made a number differs too, but with the bug or without it.
            EngineBug.plant(nil)
            defer { EngineBug.plant(bug) }
            return FuzzCampaign.disagreement(engine, program, truth) == nil
        }
        let first = FuzzPlantedTests.firstSeeds[bug] ?? 1
        campaign.run(first..<(first + 100_000), differencesMax: 1)
        let found = try #require(campaign.differences.first, "\(bug) is not found")
        print("planted \(bug): found by program \(campaign.tried) from seed \(first) on, of \(found.program.code.count) instructions: \(found.what.prefix(120))")
        if isKept { try FuzzCampaign.keep("planted-\(bug)", found) }
    }

    /// A bug without a case fails: `APUS_FUZZ_KEEP=1` makes `isFound` write one.
    @Test(arguments: EngineBug.allCases) func keptCaseFinds(_ bug: EngineBug) throws {
        let program = try #require(try FuzzCampaign.kept().first { $0.name == "planted-\(bug).case" }?.program, "no case is kept for \(bug)")
        let pinned = unsafe apus_twin_pin()
        defer { unsafe apus_twin_unpin(pinned) }
        let truth = try FuzzKernel().observe(program), engine = FuzzRuntime(isSandboxed: true)
        #expect(FuzzCampaign.disagreement(engine, program, truth) == nil)
        EngineBug.plant(bug)
        defer { EngineBug.plant(nil) }
        #expect(FuzzCampaign.disagreement(engine, program, truth) != nil)
    }
}
#endif
