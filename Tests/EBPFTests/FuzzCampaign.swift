import CBPF
import Foundation

@testable import EBPF

/// Many programs, each in every engine.
final class FuzzCampaign {
    struct Difference {
        let seed: UInt64
        let engine: String
        let what: String
        /// As small as it could be made.
        let program: FuzzProgram
    }

    let kernel: FuzzKernel
    let engines: [any FuzzEngine]
    private(set) var tried = 0, accepted = 0, instructions = 0, runs = 0
    /// Accepted programs without a packet access, a map operation or a branch on a number: there are none.
    private(set) var poor = 0
    private(set) var histogram = FuzzHistogram()
    private(set) var refusals: [String: Int] = [:]
    private(set) var differences: [Difference] = []
    /// By engine: the programs it ran.
    private var ran: [String: Int] = [:]
    private let isShrinking: Bool
    private let isCase: (FuzzProgram, FuzzOutcome) -> Bool

    /// - Parameter isCase: what else holds of a program that is made smaller, given what the kernel says of it.
    init(engines: [any FuzzEngine], isShrinking: Bool = true, isCase: @escaping (FuzzProgram, FuzzOutcome) -> Bool = { _, _ in true }) throws {
        kernel = try FuzzKernel()
        self.engines = engines
        self.isShrinking = isShrinking
        self.isCase = isCase
    }

    /// Runs the programs of these seeds that are wanted, up to so many of them and so many differences.
    func run(_ seeds: Range<UInt64>, differencesMax: Int = 3, triedMax: Int = .max, where isWanted: (FuzzProgram) -> Bool = { _ in true }) {
        let pinned = unsafe apus_twin_pin()
        defer { unsafe apus_twin_unpin(pinned) }
        for seed in seeds {
            if differences.count >= differencesMax || tried >= triedMax { break }
            var generator = FuzzGenerator(seed: seed)
            let written = generator.next()
            guard isWanted(written.program) else { continue }
            one(seed, written)
            if tried % 100_000 == 0 { print(report) }
        }
    }

    private func one(_ seed: UInt64, _ written: FuzzGenerator.Written) {
        tried += 1
        let truth: FuzzOutcome
        do {
            truth = try kernel.observe(written.program)
        } catch {
            refused(written.program)
            return
        }
        accepted += 1
        instructions += written.program.code.count
        runs += written.program.packets.count
        histogram.add(written.cells)
        if !FuzzCampaign.isRich(written.cells) { poor += 1 }
        for engine in engines where seed % engine.stride == 0 {
            ran[engine.name, default: 0] += 1
            guard let what = FuzzCampaign.disagreement(engine, written.program, truth) else { continue }
            let shrinker = FuzzShrinker { [kernel, isCase] program in
                // What is said only once is chance: time, random numbers, and addresses, which another thread has others of.
                guard let truth = try? kernel.observe(program), let again = try? kernel.observe(program), truth == again,
                      FuzzCampaign.disagreement(engine, program, truth) != nil, isCase(program, truth) else { return false }
                return FuzzCampaign.outcome(engine, program) == FuzzCampaign.elsewhere { FuzzCampaign.outcome(engine, program) }
            }
            differences.append(Difference(seed: seed, engine: engine.name, what: what,
                                          program: isShrinking ? shrinker.shrink(written.program) : written.program))
        }
    }

    /// Nil: the engine says what the kernel says.
    static func disagreement(_ engine: any FuzzEngine, _ program: FuzzProgram, _ truth: FuzzOutcome) -> String? {
        do { return try engine.observe(program).difference(from: truth) } catch { return "\(error)" }
    }

    private static func outcome(_ engine: any FuzzEngine, _ program: FuzzProgram) -> FuzzOutcome? { try? engine.observe(program) }

    /// The same in another thread, on the same CPU.
    private static func elsewhere<Result>(_ body: @escaping () -> Result) -> Result? {
        nonisolated(unsafe) var result: Result?
        nonisolated(unsafe) let work = body
        let done = DispatchSemaphore(value: 0)
        let thread = Thread {
            unsafe result = unsafe work()
            done.signal()
        }
        thread.start()
        done.wait()
        return unsafe result
    }

    /// The last thing the verifier said, of the first thousand it refused.
    private func refused(_ program: FuzzProgram) {
        guard tried - accepted <= 1000 else { return }
        do {
            apus_close(try kernel.load(program, log: true))
            refusals["taken at the second try", default: 0] += 1
        } catch {
            let last = "\(error)".split(separator: "\n").last { !$0.hasPrefix("processed ") } ?? "nothing"
            refusals[String(last), default: 0] += 1
        }
    }

    static func isRich(_ cells: [FuzzCell]) -> Bool {
        var packet = false, map = false, branch = false
        for cell in cells {
            let operand = FuzzOperand(rawValue: cell.column), kind = cell.row & 7
            if kind >= 1 && kind <= 3 && operand == .packet && cell.row >> 31 == 0 { packet = true }
            if cell.column >= 64 || kind >= 1 && kind <= 3 && operand == .value { map = true }
            if (kind == 5 || kind == 6) && operand?.isNumber == true && cell.row >> 31 == 0 { branch = true }
        }
        return packet && map && branch
    }

    var report: String {
        let share = tried > 0 ? accepted * 1000 / tried : 0
        return "fuzz: \(tried) programs, \(accepted) accepted by the kernel (\(share / 10).\(share % 10) %), \(instructions / max(accepted, 1)) instructions each, "
            + "\(runs) runs in the kernel; programs in \(engines.map { "\($0.name) \(ran[$0.name, default: 0])" }.joined(separator: ", ")); \(differences.count) differences"
    }

    // MARK: Cases that are kept

    static let folder = Objects.fixtures.appendingPathComponent("fuzz")

    static func kept() throws -> [(name: String, program: FuzzProgram)] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".case") }.sorted().map {
            ($0, try FuzzText.read(String(contentsOf: folder.appendingPathComponent($0), encoding: .utf8)))
        }
    }

    static func keep(_ name: String, _ difference: Difference) throws {
        let remarks = ["seed \(difference.seed), \(difference.engine): \(difference.what)"]
        try FuzzText.write(difference.program, remarks: remarks).write(to: folder.appendingPathComponent("\(name).case"), atomically: true, encoding: .utf8)
    }
}
