import Foundation
import Testing

@testable import EBPF

/// Programs by other people: verdict, bytes and map contents equal to the kernel's on the same packets and the same map
/// contents; and each of them made to show more than one verdict, where it has more.
@Suite(.serialized, .timeLimit(.minutes(30))) struct ForeignTests {
    private static let packets = Int(ProcessInfo.processInfo.environment["APUS_FOREIGN_PACKETS"] ?? "") ?? 10_000

    private struct Report {
        var equal: [String] = [], refused: [String] = [], constant: [String] = [], failed: [String] = []
        var ran = 0, instructions = 0
    }

    /// Maps that hold times, which differ.
    private static let times: Set<String> = ["ping_map", "flow_state_map"]

    /// Every program in its worlds, up to the first that shows a second verdict.
    private func run(_ programs: [ForeignProgram], into report: inout Report) throws {
        defer { TwinRun.unpin() }
        for foreign in programs {
            var verdicts: [UInt32: Int] = [:], coverage = (ran: 0, of: 0)
            do {
                for world in ForeignWorld.all(for: foreign) where verdicts.count < 2 {
                    TwinRun.pin(world.cpu)
                    let path = try foreign.with(world.constants)
                    let object = try ObjectFile(name: path, bytes: try Objects.bytes(path))
                    var entries: [String: Int] = [:]
                    // The tools give these maps a size before they load.
                    for map in object.maps where map.definition.maxEntries == 0 && !map.definition.isDataSection { entries[map.definition.name] = world.size }
                    if entries.isEmpty && world.cpu != 0 { continue }
                    let twin = try TwinRun(object: path, program: foreign.name, entries: entries)
                    var random = SplitMix(8)
                    if world.isFilled { try ForeignWorld.fill(twin, &random) }
                    try compare(twin, "\(foreign), \(world.name)", &report)
                    verdicts.merge(twin.verdicts, uniquingKeysWith: +)
                    if twin.coverage.ran > coverage.ran { coverage = twin.coverage }
                }
            } catch let error as LoadError {
                report.refused.append("\(foreign): \(ForeignTests.reason(error))")
                continue
            }
            let shown = verdicts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", ")
            report.equal.append("\(foreign): verdicts \(shown); \(coverage.ran) of \(coverage.of) instructions ran")
            report.ran += coverage.ran
            report.instructions += coverage.of
            if verdicts.count < 2 { report.constant.append("\(foreign)") }
        }
    }

    private func compare(_ twin: TwinRun, _ what: String, _ report: inout Report) throws {
        var traffic = WideTraffic(seed: 31)
        for number in 0..<ForeignTests.packets {
            let (packet, l3Offset) = traffic.next()
            if let difference = twin.run(packet, l3Offset) {
                Issue.record("\(what), packet \(number): \(difference)")
                report.failed.append(what)
                return
            }
        }
        if let difference = twin.differingMap(except: ForeignTests.times) {
            Issue.record("\(what): \(difference)")
            report.failed.append(what)
        }
    }

    private static func reason(_ error: LoadError) -> String {
        let lines = error.message.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        let source = error.source.map { " (\($0))" } ?? ""
        return (error.kind == .refused ? "the kernel refuses it: \(lines.last ?? "")" : lines.first ?? "") + source
    }

    private func printed(_ report: Report, _ title: String) {
        print("\(title): \(report.equal.count) equal to the kernel over \(ForeignTests.packets) packets each, \(report.refused.count) refused, \(report.constant.count) with one verdict only; \(report.ran) of \(report.instructions) instructions ran at least once")
        for line in report.equal { print("  \(line)") }
        for line in report.constant { print("  one verdict: \(line)") }
        for line in report.refused { print("  refused: \(line)") }
        for line in report.failed { print("  different: \(line)") }
    }

    @Test func packagedProgramsEqualTheKernel() throws {
        let programs = try ForeignProgram.packaged()
        // libxdp1 and xdp-tools are packages this test needs.
        try #require(programs.count >= 30, "only \(programs.count) foreign programs found: install libxdp1 and xdp-tools")
        var report = Report()
        try run(programs, into: &report)
        printed(report, "packaged programs")
        #expect(report.equal.count >= 30)
    }

    @Test func kernelProgramsEqualTheKernel() throws {
        var report = Report()
        let compiled = try KernelSource.compile()
        for source in compiled where source.path == nil { report.refused.append("\(source.name): does not compile: \(source.complaint)") }
        try run(try ForeignProgram.programs(of: compiled.compactMap { source in source.path.map { (source.name, $0) } }), into: &report)
        printed(report, "selftests and samples of Linux 6.12")
        #expect(report.equal.count >= 40)
    }
}
