import Foundation
import Testing

@testable import EBPF

/// Programs by other people: verdict, bytes and map contents equal to the kernel's on the same packets and the same map
/// contents; and each of them made to show more than one verdict, where it has more.
@Suite(.serialized, .timeLimit(.minutes(30))) struct ForeignTests {
    private static let packets = Int(ProcessInfo.processInfo.environment["APUS_FOREIGN_PACKETS"] ?? "") ?? 10_000

    /// The same for all, made once; more than that is made anew each time.
    private static let traffic: [[UInt8]] = {
        var traffic = WideTraffic(seed: 31)
        return (0..<min(packets, 20_000)).map { _ in traffic.next() }
    }()

    private struct Report {
        var equal: [String] = [], refused: [String] = [], constant: [String] = [], failed: [String] = []
        var ran = 0, instructions = 0, packets = 0, worlds = 0
        /// How many programs showed so many verdicts.
        var byVerdicts: [Int: Int] = [:]
        /// Relocations that ask the running kernel for types it does not have.
        var absent: [String] = []
    }

    /// Maps that hold times, which differ.
    private static let times: Set<String> = ["ping_map", "flow_state_map"]

    private func run(_ programs: [ForeignProgram], into report: inout Report) throws {
        defer { TwinRun.unpin() }
        for foreign in programs {
            do {
                try run(foreign, into: &report)
            } catch let error as LoadError {
                report.refused.append("\(foreign): \(ForeignTests.reason(error))")
            }
        }
    }

    private func run(_ foreign: ForeignProgram, into report: inout Report) throws {
        let linked = try ProgramLoader.link(object: foreign.path, program: foreign.name, entries: try ForeignTests.sizes(foreign.path, 4)).0
        for (_, what) in linked.absent.sorted(by: { $0.key < $1.key }) { report.absent.append("\(foreign): \(what)") }
        let bound = VerdictBound.of(linked)
        // bpf_fib_lookup and bpf_check_mtu ask the host.
        if bound.helpers.isDisjoint(with: [69, 163]) { return try run(foreign, bound, &report) }
        try HostHooks.withKernelMTUs { try run(foreign, bound, &report) }
    }

    /// A program in its worlds: up to the first that shows a second verdict, and those made for it.
    private func run(_ foreign: ForeignProgram, _ bound: VerdictBound, _ report: inout Report) throws {
        var verdicts: [UInt32: Int] = [:], trace: [Bool?] = [], worlds = 0
        for world in ForeignWorld.all(for: foreign, bound) where verdicts.count < 2 || world.isSpecial {
            TwinRun.pin(world.cpu)
            let path = try foreign.with(world.constants)
            let entries = try ForeignTests.sizes(path, world.size)
            if entries.isEmpty && world.cpu != 0 { continue }
            let before = report.failed.count
            let twin = try world.inNamespace { device in
                let twin = try TwinRun(object: path, program: foreign.name, entries: entries, egressReads: bound.egressReads, hasTargets: world.isFilled)
                twin.device = device
                try world.fill(twin)
                try compare(twin, world, "\(foreign), \(world.name)", &report)
                return twin
            }
            worlds += 1
            verdicts.merge(twin.verdicts, uniquingKeysWith: +)
            trace = trace.isEmpty ? twin.trace : zip(trace, twin.trace).map { $0 == true ? $0 : $1 }
            if report.failed.count > before { break }
        }
        let isEgress = !bound.egressReads.isEmpty
        judge(foreign, verdicts, bound, &report)
        let shown = verdicts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", ")
        let ran = trace.count { $0 == true }, of = trace.count { $0 != nil }
        report.equal.append("\(foreign): verdicts \(shown); \(worlds) worlds; \(ran) of \(of) instructions ran"
            + (isEgress ? "; in the kernel with 0 in place of the leaving device's number, as it test-runs no program that reads it" : ""))
        report.ran += ran
        report.instructions += of
        report.worlds += worlds
        report.byVerdicts[verdicts.count, default: 0] += 1
    }

    /// Maps that tools give a size before they load.
    private static func sizes(_ path: String, _ size: Int) throws -> [String: Int] {
        let maps = try ObjectFile(name: path, bytes: try Objects.bytes(path)).maps.map(\.definition)
        return Dictionary(maps.filter { $0.maxEntries == 0 && !$0.isDataSection }.map { ($0.name, size) }) { one, _ in one }
    }

    /// One verdict needs a reason; and no verdict comes that the bound leaves out.
    private func judge(_ foreign: ForeignProgram, _ verdicts: [UInt32: Int], _ bound: VerdictBound, _ report: inout Report) {
        if let possible = bound.verdicts {
            let beyond = verdicts.keys.filter { !possible.contains($0) }
            #expect(beyond.isEmpty, "\(foreign) ends with \(beyond), which its instructions rule out: the walk over them is wrong")
        }
        guard verdicts.count < 2 else { return }
        if bound.verdicts?.count == 1 {
            let given = bound.facts.isEmpty ? "" : ", as " + bound.facts.map(\.rawValue).sorted().joined(separator: " and ")
            report.constant.append("\(foreign): every path through its instructions ends with \(bound.verdicts!.first!)\(given)")
        } else {
            let possible = bound.verdicts.map { "\($0.sorted())" } ?? "anything"
            Issue.record("\(foreign) shows one verdict only, \(verdicts.keys.sorted()), and could show \(possible): it needs a world that makes it")
        }
    }

    private func compare(_ twin: TwinRun, _ world: ForeignWorld, _ what: String, _ report: inout Report) throws {
        var traffic = WideTraffic(seed: 32), random = SplitMix(77)
        for number in 0..<ForeignTests.packets {
            var packet = number < ForeignTests.traffic.count ? ForeignTests.traffic[number] : traffic.next()
            if number % 4 == 3, let own = world.packets.randomElement(using: &random) {
                // One in eight is truncated.
                packet = number % 32 == 3 ? Array(own.prefix(Int.random(in: 14...own.count, using: &random))) : own
            }
            let size = packet.count
            let difference = twin.run(packet, metadata: world.metadata[number % world.metadata.count]) { outcome in
                guard let times = world.times, outcome.bytes.count >= size + times.upperBound else { return outcome }
                var outcome = outcome
                for at in times { outcome.bytes[at] = 0 }
                return outcome
            }
            report.packets += 1
            if let difference {
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
        return (error.kind == .refused ? "the kernel refuses it: \(lines.last { !$0.hasPrefix("libbpf: failed to load object") } ?? "")" : lines.first ?? "") + source
    }

    private func printed(_ report: Report, _ title: String) {
        let counts = report.byVerdicts.sorted { $0.key < $1.key }.map { "\($0.value) with \($0.key)" }.joined(separator: ", ")
        print("\(title): \(report.equal.count) equal to the kernel over \(ForeignTests.packets) packets in each of \(report.worlds) worlds, \(report.packets) in all; \(report.failed.count) differences; verdicts: \(counts); \(report.refused.count) refused; \(report.ran) of \(report.instructions) instructions ran at least once")
        for line in report.equal { print("  \(line)") }
        for line in report.constant { print("  one verdict: \(line)") }
        for line in report.refused { print("  refused: \(line)") }
        for line in report.absent { print("  not in the running kernel: \(line)") }
        for line in report.failed { print("  different: \(line)") }
    }

    @Test func trafficIsOfEveryKind() {
        let census = WideTraffic.census(ForeignTests.traffic)
        print("foreign programs: each world's \(ForeignTests.traffic.count) packets: " + census.sorted { $0.value > $1.value }.map { "\($0.value) \($0.key)" }.joined(separator: ", "))
        #expect(census.count == 8 && census.values.allSatisfy { $0 * 200 >= ForeignTests.traffic.count })
    }

    @Test func packagedProgramsEqualTheKernel() throws {
        let programs = try ForeignProgram.packaged()
        // libxdp1 and xdp-tools are packages this test needs.
        try #require(programs.count >= 30, "only \(programs.count) foreign programs found: install libxdp1 and xdp-tools")
        var report = Report()
        try run(programs, into: &report)
        printed(report, "packaged programs")
        #expect(report.equal.count >= 38)
        // All of libxdp1, and nothing of it at one verdict for want of a world: `judge` sees to that.
        #expect(!report.refused.contains { $0.split(separator: " ")[0].hasSuffix(".o") })
    }

    @Test func kernelProgramsEqualTheKernel() throws {
        var report = Report()
        let compiled = try KernelSource.compile()
        for source in compiled where source.path == nil { report.refused.append("\(source.name): does not compile: \(source.complaint)") }
        for source in compiled {
            guard let path = source.path, let object = try? ObjectFile(name: path, bytes: try Objects.bytes(path)), object.programs.isEmpty else { continue }
            report.refused.append("\(source.name): none of its sections is an XDP program's by its name")
        }
        try run(try ForeignProgram.programs(of: compiled.compactMap { source in source.path.map { (source.name, $0) } }), into: &report)
        printed(report, "selftests and samples of Linux 6.12")
        #expect(report.equal.count >= 139)
    }
}
