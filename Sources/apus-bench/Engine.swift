import ArgumentParser
import CBench
import CDPDK
import Compiler
import EBPF
import Foundation

/// Programs in four ways: in the kernel (its JIT), compiled here, interpreted here, and compiled by clang for the host.
struct Engine: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Times programs in the kernel, compiled, interpreted and native, net of an empty program in each.")

    @Option(help: "Interleaved rounds; means of the instances' medians are printed.") var rounds = 12
    @Option(help: "Instances of each program in each way, with maps and code of their own; they take turns.") var instances = 4
    @Option(help: "Different packets.") var packets = 4096
    @Option(help: "Runs on each packet in a row, in every way: programs that grow packets find no room after a few.") var runs = 4
    @Option(help: "Folder of the compiled programs.") var objects = ".build/bpf"
    @Option(help: "Folder of the programs' sources, for the native ones.") var sources = "programs"
    @Option(help: "Folder of the header for native programs.") var header = "CShims/CBench/native"
    @Option(help: "Only programs whose name has this in it.") var only: String?

    func run() throws {
        let compiler = try Compiler()
        let frames = EngineTraffic(0..<packets)
        let empty = try EngineSubject(.init(name: "empty", object: "\(objects)/empty.o"), self, compiler)
        var subjects: [EngineSubject] = []
        for program in try EngineProgram.all(objects) where only.map(program.name.contains) ?? true {
            do {
                subjects.append(try EngineSubject(program, self, compiler))
            } catch {
                print("  \(program.name): left out: \(("\(error)").split(separator: "\n").last ?? "")")
            }
        }
        for round in 0..<rounds {
            for subject in round % 2 == 0 ? subjects : subjects.reversed() { subject.measure(round, empty, frames, runs: runs) }
            FileHandle.standardError.write(Data("round \(round + 1) of \(rounds)\n".utf8))
        }
        report(subjects, empty)
    }

    func validate() throws {
        guard instances > 0, rounds >= instances else { throw ValidationError("Each of the instances, at least one, is measured in a round of its own: --rounds is at least --instances.") }
    }

    private func report(_ subjects: [EngineSubject], _ empty: EngineSubject) {
        print("ns a packet net of an empty program (\(EngineWay.allCases.map { "\($0) \(format(empty.time($0)))" }.joined(separator: ", "))), each beside its own;")
        print("\(packets) packets, \(runs) runs each, \(rounds) interleaved rounds, \(instances) instances, means of their medians; maps filled to 10000 entries where they have room")
        print("program                           kernel compiled untracked interpreted native  kernel/compiled native/compiled")
        var ratios: [Double] = [], natives: [Double] = [], slower: [String] = []
        for subject in subjects {
            guard let kernel = subject.net(.kernel), let compiled = subject.net(.compiled) else { continue }
            let native = subject.net(.native)
            let ratio = kernel / max(compiled, 0.1)
            // No program takes less than none: below zero is what the clock errs by.
            if kernel >= 10 { ratios.append(ratio) } else if compiled > max(kernel, 0) + 1 { slower.append(subject.name) }
            if let native, kernel >= 10 { natives.append(native / max(compiled, 0.1)) }
            let columns = [kernel, compiled, subject.net(.untracked), subject.net(.interpreted), native].map { format($0) }
            print("\(pad(subject.name, 34))\(columns.map { pad($0, 9) }.joined()) \(pad(format(ratio), 9)) \(native.map { format($0 / max(compiled, 0.1)) } ?? "-")")
        }
        print("kernel/compiled, geometric mean of \(ratios.count) programs of 10 ns and more in the kernel: \(format(mean(ratios))) (bar: 2)")
        print("of the others more than 1 ns slower than the kernel: \(slower.isEmpty ? "none" : slower.joined(separator: ", "))")
        print("native/compiled, geometric mean of \(natives.count): \(format(mean(natives))) (bar: 0.8)")
        // Where there is something to divide by.
        let tracking = subjects.filter { $0.tracks && $0.net(.untracked) ?? 0 > 1 }
        func ratio(_ value: Double?) -> String { value.map { String(format: "%.3f", $0) } ?? "-" }
        let all = mean(tracking.compactMap { subject in subject.net(.compiled).flatMap { compiled in subject.net(.untracked).map { compiled / $0 } } })
        let each = (0..<instances).map { number in
            mean(tracking.compactMap { subject in
                let (compiled, untracked) = (subject.nets(.compiled), subject.nets(.untracked))
                return number < min(compiled.count, untracked.count) && untracked[number] > 1 ? compiled[number] / untracked[number] : nil
            })
        }
        print("tracking, compiled/untracked, geometric mean of \(tracking.count): \(ratio(all)) (bar: 1.05); by instance \(each.map(ratio).joined(separator: ", "))")
        print("  \(tracking.map { "\($0.name) \(ratio(($0.net(.compiled) ?? 0) / ($0.net(.untracked) ?? 1)))" }.joined(separator: ", "))")
        print("compilation: \(subjects.map { "\($0.name) \($0.instructions) instructions \(Int($0.milliseconds)) ms \($0.bytes) bytes" }.joined(separator: "; "))")
    }

    private func mean(_ values: [Double]) -> Double? {
        values.isEmpty ? nil : exp(values.map(log).reduce(0, +) / Double(values.count))
    }

    private func format(_ value: Double?) -> String { value.map { String(format: "%.1f", $0) } ?? "-" }
    private func pad(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(1, width - text.count)) }
}

/// What is measured: the project's own programs, and those that Debian ships.
struct EngineProgram {
    let name: String
    let object: String
    var program: String?

    /// Where a program of several begins.
    private static func entry(_ file: String) -> String? {
        guard file.hasSuffix("_split.o") else { return nil }
        let name = file.dropLast("_split.o".count)
        return name == "synproxy" ? "synproxy_read_step" : "\(name)_1"
    }

    static func all(_ objects: String) throws -> [EngineProgram] {
        let files = FileManager.default
        let own = try files.contentsOfDirectory(atPath: objects).filter { $0.hasSuffix(".o") && $0 != "empty.o" }.sorted().map {
            EngineProgram(name: String($0.dropLast(2)), object: "\(objects)/\($0)", program: entry($0))
        }
        let folders = ["x86_64", "aarch64"].map { "/usr/lib/\($0)-linux-gnu/bpf" }
        let foreign = folders.flatMap { folder in
            ((try? files.contentsOfDirectory(atPath: folder)) ?? []).filter { $0.hasSuffix(".o") }.sorted().flatMap { file in
                ((try? Explanation.of(object: "\(folder)/\(file)", program: nil)) ?? []).map {
                    EngineProgram(name: "\(file.dropLast(2)) \($0.program)", object: "\(folder)/\(file)", program: $0.program)
                }
            }
        }
        return own + foreign
    }
}
