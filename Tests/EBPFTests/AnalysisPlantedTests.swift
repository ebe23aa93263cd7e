#if APUS_PLANTED
import Testing

@testable import EBPF

/// Each rule of the analysis broken in turn, and the programs whose answers, written by hand, then are wrong. Most that let
/// wrong checksums out show in packets, too: ContractPlantedTests.
///
/// | bug | what is wrong |
/// | --- | --- |
/// | lookAlone | a packet is completed at the look, not before the first change from which one can be reached |
/// | closedReads | a closed read before a look does not count |
/// | oneWayMarks | what completes on one way does not count on the others |
/// | branches | what a branch on the field decides is told from nothing |
/// | spills | bytes stored to the stack are forgotten |
/// | differences | so is what went into `bpf_csum_diff` |
/// | ownBytes | and what the program stored to the field itself |
/// | verdicts, maps, otherBytes, arguments, addresses | the field's value in one of these is no look |
/// | unknownSlots | a tail call to nobody knows where looks at nothing |
/// | tcpZero | TCP's field may be compared with zero |
/// | answers | how often a helper calls back may depend on the field |
/// | secondRounds | it calls once at most |
/// | ownZero | the program's own "no checksum" is not told from a computed zero |
/// | anyZero | every zero is the program's own |
/// | eitherZero | one store of both kinds is no look |
/// | foldsLook | every branch on the field is a look |
/// | udpZeroLooks | UDP's field may not be compared with zero |
/// | ownReads | reading what the program itself stored is a look |
@Suite(.serialized) struct AnalysisPlantedTests {
    @Test(arguments: AnalysisBug.allCases) func isFound(_ bug: AnalysisBug) throws {
        AnalysisBug.plant(bug)
        defer { AnalysisBug.plant(nil) }
        let found = try Golden.all.compactMap { golden in try AnalysisGoldenTests.differences(golden).first.map { "\(golden): \($0)" } }
        print("planted \(bug): found by \(found.count) of \(Golden.all.count) programs: \(found.first ?? "none")")
        #expect(!found.isEmpty)
    }
}
#endif
