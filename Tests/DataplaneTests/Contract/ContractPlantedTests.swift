#if APUS_PLANTED
@testable import EBPF
import Foundation
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// Rules of the contract's sections 3 and 4 broken in turn: packets then differ between `lazy`, `eager` and a finished
    /// arrival, in a case that failed once or in one of the random programs.
    @Suite(.serialized) struct ContractPlantedTests {
        /// Not those that complete packets for nothing, those for which no random program is made, or those that show in
        /// whether a zero or ones stand for a UDP checksum of zero, which is the same in normal form: goldens find all of
        /// them (AnalysisPlantedTests).
        private static let shown: [AnalysisBug] = [.lookAlone, .oneWayMarks, .branches, .spills, .differences, .ownBytes, .verdicts, .maps,
                                                   .otherBytes, .arguments, .ownZero]

        @Test(arguments: shown) func isFound(_ bug: AnalysisBug) throws {
            AnalysisBug.plant(bug)
            defer { AnalysisBug.plant(nil) }
            print("planted \(bug): \(try #require(try ContractPlantedTests.firstFault(), "\(bug) is not found"))")
        }

        @Test(arguments: Planted.ofRuns) func isFound(_ bug: Planted) throws {
            Planted.plant(bug)
            defer { Planted.plant(nil) }
            print("planted \(bug): \(try #require(try ContractPlantedTests.firstFault(), "\(bug) is not found"))")
        }

        /// The first case, or random run, with a fault.
        private static func firstFault() throws -> String? {
            for (name, kept) in try ContractPropertyTests.cases() {
                if try ContractPropertyTests.Lanes(kept.program).fault(kept.arrival) != nil { return "found by \(name)" }
            }
            var samples = ContractPropertyTests.Samples(), runs = 0
            while runs < 25_000 {
                let (_, lanes, arrivals) = try samples.next()
                for arrival in arrivals {
                    runs += 1
                    if let fault = lanes.fault(arrival) { return "found by run \(runs), \(arrival.description): \(fault.prefix(100))" }
                }
            }
            return nil
        }
    }
}
#endif
