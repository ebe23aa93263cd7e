import Foundation
import Synchronization
import Testing

@testable import EBPF

/// The analysis against ``Golden``: wrong in either direction is a failure.
@Suite struct AnalysisGoldenTests {
    /// Tags by line of a fixture.
    static func tags(_ file: String) throws -> [Int: Set<String>] {
        let path = Objects.fixtures.appendingPathComponent("analysis/\(file).bpf.c")
        let lines = try String(contentsOf: path, encoding: .utf8).components(separatedBy: "\n")
        var result: [Int: Set<String>] = [:]
        for (number, line) in lines.enumerated() {
            guard let comment = line.range(of: "// @") else { continue }
            let words = line[comment.lowerBound...].split(separator: " ").filter { $0.hasPrefix("@") }
            result[number + 1] = Set(words.map { String($0.dropFirst()) })
        }
        return result
    }

    /// Linked programs: AnalysisPlantedTests asks for each of them once a bug.
    private static let linked = Mutex<[String: LinkedProgram]>([:])

    static func link(_ path: String, _ program: String?) throws -> LinkedProgram {
        let name = "\(path) \(program ?? "")"
        if let known = linked.withLock({ $0[name] }) { return known }
        let (made, _) = try ProgramLoader.link(object: path, program: program, toRun: false)
        linked.withLock { $0[name] = made }
        return made
    }

    static func analysis(_ golden: Golden) throws -> (Analysis, [LinkedProgram]) {
        let path = try Objects.fixture(golden.file)
        let root = try link(path, golden.program)
        let targets = try golden.next.map { try $0.mapValues { try link(path, $0) } }
        let analysis = Analysis.of(root) { _, _ in targets.map { .known($0) } ?? .unknown }
        let all = analysis.programs.map { name in ([root] + (targets.map { Array($0.values) } ?? [])).first { $0.program.name == name }! }
        return (analysis, all)
    }

    @Test(arguments: Golden.all) func golden(_ golden: Golden) throws {
        #expect(try AnalysisGoldenTests.differences(golden) == [])
    }

    /// What the analysis says otherwise.
    static func differences(_ golden: Golden) throws -> [String] {
        let (analysis, programs) = try AnalysisGoldenTests.analysis(golden)
        let tags = try AnalysisGoldenTests.tags(golden.file)
        func place(_ instruction: Int, _ program: Int = 0) -> String {
            guard let source = programs[program].source(instruction) else { return "instruction \(instruction)" }
            return source.file.hasSuffix("\(golden.file).bpf.c") ? "\(source.line)" : "\(source)"
        }
        /// The one tag of a line that the table knows.
        func tag(_ instruction: Int, _ program: Int = 0, of known: some Sequence<String>) -> String {
            let at = place(instruction, program)
            return Int(at).flatMap { tags[$0]?.first { known.contains($0) } } ?? "line \(at)"
        }
        var found: [String] = []
        func expect<Value: Equatable>(_ value: Value, _ expected: Value, _ what: String) {
            if value != expected { found.append("\(what): \(value), not \(expected)") }
        }
        expect(analysis.limit, nil, "limit")
        expect(analysis.isReadOnly, golden.isReadOnly && (golden.program != "entry" || golden.next != nil), "reads only")

        var reads: [String: Golden.Read] = [:]
        for read in analysis.reads {
            let tag = tag(read.instruction, read.program, of: golden.reads.keys)
            if reads[tag] != .look { reads[tag] = read.isLook ? .look : .closed }
        }
        expect(reads, golden.reads, "reads")
        expect(Set(analysis.completions.map { tag($0, of: golden.completed) }), golden.completed, "completions")

        var stores: [String: Golden.Range] = [:]
        for store in analysis.stores {
            let tag = tag(store.instruction, of: golden.stores.keys)
            switch stores[tag] {
            case nil: stores[tag] = store.fromL3.map { .l3(Int($0.lower), Int($0.upper)) } ?? .data(Int(store.fromData.lower), Int(store.fromData.upper))
            case .l3(let low, let high):
                stores[tag] = store.fromL3.map { .l3(min(low, Int($0.lower)), max(high, Int($0.upper))) }
                    ?? .data(Int(store.fromData.lower), Int(store.fromData.upper))
            case .data(let low, let high): stores[tag] = .data(min(low, Int(store.fromData.lower)), max(high, Int(store.fromData.upper)))
            }
        }
        expect(stores, golden.stores, "stores")
        var adjusts: [String: String] = [:]
        for adjustment in analysis.adjustments { adjusts[tag(adjustment.instruction, of: golden.adjusts.keys)] = adjustment.helper }
        expect(adjusts, golden.adjusts, "adjusts")
        return found
    }
}
