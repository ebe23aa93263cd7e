import DPDK
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    @Suite struct MatrixTests {
        static let groups: [(name: String, run: @Sendable (Report) -> Void)] = [
            ("leaving", Matrix.leaving), ("superframes", Matrix.superframes), ("MTU", Matrix.mtu),
        ]

        @Test(arguments: groups.indices) func matrix(_ index: Int) {
            let report = Report()
            Self.groups[index].run(report)
            print("\(Self.groups[index].name): \(report.summary)")
            #expect(report.failures.isEmpty, "\(report.failures.count) of \(report.cases): \(report.failures.prefix(8).joined(separator: "\n"))")
        }
    }
}
