import ArgumentParser
import Compiler
import EBPF
import Foundation

/// In the words of `bpftool prog run`.
struct ProgRun: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "run", abstract: "Run a program of an object on a packet.")

    @Argument(help: "The object file.")
    var object: String

    @Option(help: "Which program, where the object has several.")
    var program: String?

    @Option(name: .customLong("data-in"), help: ArgumentHelp("The packet; - is standard input.", valueName: "file"))
    var dataIn: String

    @Option(name: .customLong("data-out"), help: ArgumentHelp("Where the packet goes as the program left it; - is standard output.", valueName: "file"))
    var dataOut: String?

    @Option(name: .customLong("repeat"), help: ArgumentHelp("How often, each time on what the last run left.", valueName: "n"))
    var count = 1

    @Option(help: "interpreter or jit.")
    var engine = EngineName.jit

    @Option(help: "kernel or sandbox.")
    var verify = VerifyName.kernel

    @Option(help: ArgumentHelp("What is known of the packet's checksum: none, unnecessary or partial,START,OFFSET.", valueName: "state"))
    var checksum = ChecksumArgument.none

    @Option(name: .customLong("gso-size"), help: ArgumentHelp("The packet is to be cut into payloads of N bytes.", valueName: "n"))
    var segmentSize: Int?

    @Option(name: .customLong("map"), help: ArgumentHelp("Contents of a map (repeatable).", valueName: "name=file"))
    var maps: [String] = []

    @Flag(help: "Say how many cycles a run spends on each source line; needs --repeat of 1000 or more.")
    var cycles = false

    @Flag(help: "Print one JSON document.")
    var json = false

    func validate() throws {
        if !(1...1_000_000_000).contains(count) { throw ValidationError("--repeat is a number from 1 to 1000000000.") }
        if cycles, engine != .jit || count < 1000 { throw ValidationError("--cycles needs the compiler and --repeat of 1000 or more: one run says nothing.") }
        if let segmentSize, !(1...65535).contains(segmentSize) { throw ValidationError("--gso-size is a number from 1 to 65535.") }
    }

    func run() throws {
        let packet = try read(dataIn)
        guard packet.count >= 14 else { throw Failure("\(dataIn) holds \(packet.count) bytes: a packet has an Ethernet header of 14.") }
        guard packet.count <= 65_536 else { throw Failure("\(dataIn) holds \(packet.count) bytes: a packet has at most 65536.") }
        let loaded: LoadedProgram
        do throws(LoadError) {
            loaded = try ProgramLoader.load(object: object, program: program, verify: verify.verification)
        } catch {
            throw Failure("\(error)")
        }
        for map in maps { try fill(map, loaded) }
        let profile = cycles ? CycleProfile(loaded) : nil, code = try engine.prepare(loaded, profile: profile)
        let run = withExtendedLifetime(code) { PacketRun(loaded, packet: packet, count: count) }
        if let dataOut { try write(run.bytes, to: dataOut) }
        // Standard output carries one thing.
        guard dataOut != "-" else { return }
        let lines = profile?.lines.map { LineDocument($0, runs: count) }
        print(json ? try document(run, lines) : ([sentence(run)] + (lines.map(table) ?? [])).joined(separator: "\n"))
    }

    private func table(_ lines: [LineDocument]) -> [String] {
        let all = lines.reduce(0) { $0 + $1.cycles }
        func cell(_ value: Double) -> String { String(format: "%10.1f", value) }
        return ["\(cell(all)) cycles a run, by source line, without what counting takes:", "    cycles     times  line"]
            + lines.map { "\(cell($0.cycles))\(String(format: "%10.2f", $0.entries))  \($0.source)" }
    }

    private func sentence(_ run: PacketRun) -> String {
        let stopped = run.effect.fault == .none ? "" : ", stopped: \(run.effect.fault)"
        return "Return value: \(run.returnValue) (\(run.effect.verdict))\(stopped), duration (average): \(run.durationNanoseconds)ns, \(run.bytes.count) bytes"
    }

    private func document(_ run: PacketRun, _ lines: [LineDocument]?) throws -> String {
        let effect = run.effect
        let changed = EffectDocument(
            verdict: "\(effect.verdict)", wrote: effect.wrote, written: effect.written.ranges.map { [Int($0.lower), Int($0.upper)] }, head_delta: Int(effect.headDelta), tail_delta: Int(effect.tailDelta),
            lowest_end: Int(effect.lowestEnd), looked: effect.looked, fault: effect.fault == .none ? nil : "\(effect.fault)")
        let document = RunDocument(
            return_value: run.returnValue, duration_ns: run.durationNanoseconds, data_out_length: run.bytes.count, effect: changed,
            checksum_before: checksum.rawValue,
            // A program that wrote nothing leaves the state as it came (contract C1); the rest is the dataplane's.
            checksum_after: effect.wrote ? nil : checksum.rawValue, gso_size: segmentSize, lines: lines)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return String(decoding: try encoder.encode(document), as: UTF8.self)
    }

    private func fill(_ argument: String, _ program: LoadedProgram) throws {
        guard let split = argument.firstIndex(of: "=") else { throw Failure("--map is NAME=FILE, not '\(argument)'.") }
        let name = String(argument[..<split]), file = String(argument[argument.index(after: split)...])
        guard let map = program.map(named: name) else {
            throw Failure("\(program.name) has no map \(name), but \(program.maps.map(\.name).joined(separator: ", ")).")
        }
        let text = String(decoding: try read(file), as: UTF8.self)
        do throws(BPFMap.Refused) {
            try program.fill(map, text: text)
        } catch {
            throw Failure("\(file), \(error.message).")
        }
    }

    private func read(_ path: String) throws -> [UInt8] {
        do {
            if path == "-" { return Array(FileHandle.standardInput.readDataToEndOfFile()) }
            return Array(try Data(contentsOf: URL(filePath: path)))
        } catch {
            throw Failure("\(path) cannot be read: \(error.localizedDescription)")
        }
    }

    private func write(_ bytes: [UInt8], to path: String) throws {
        do {
            if path == "-" { return try FileHandle.standardOutput.write(contentsOf: Data(bytes)) }
            try Data(bytes).write(to: URL(filePath: path))
        } catch {
            throw Failure("\(path) cannot be written: \(error.localizedDescription)")
        }
    }
}

/// A name of its own: the engine's type is public and cannot take on this program's protocol.
enum VerifyName: String, ExpressibleByArgument, CaseIterable {
    case kernel, sandbox

    var verification: Verification { self == .kernel ? .kernel : .sandbox }
}

/// `none`, `unnecessary`, or `partial,START,OFFSET`.
struct ChecksumArgument: ExpressibleByArgument {
    let rawValue: String

    static var none: ChecksumArgument { ChecksumArgument(argument: "none")! }

    init?(argument: String) {
        let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
        switch parts.first {
        case "none" where parts.count == 1, "unnecessary" where parts.count == 1: break
        case "partial" where parts.count == 3 && UInt16(parts[1]) != nil && UInt16(parts[2]) != nil: break
        default: return nil
        }
        rawValue = argument
    }

    var defaultValueDescription: String { rawValue }
}

private struct EffectDocument: Encodable {
    let verdict: String
    let wrote: Bool
    /// From, and up to, counted from the first byte the packet arrived with.
    let written: [[Int]]
    let head_delta, tail_delta, lowest_end: Int
    let looked: Bool
    let fault: String?
}

/// Of one run on average.
private struct LineDocument: Encodable {
    let source: String
    let cycles: Double
    /// How often it was come to.
    let entries: Double

    init(_ line: CycleProfile.Line, runs: Int) {
        source = line.source?.short ?? "no line"
        cycles = line.cycles / Double(runs)
        entries = Double(line.entries) / Double(runs)
    }
}

private struct RunDocument: Encodable {
    let return_value: UInt32
    let duration_ns: UInt64
    let data_out_length: Int
    let effect: EffectDocument
    let checksum_before: String
    let checksum_after: String?
    let gso_size: Int?
    let lines: [LineDocument]?

    enum CodingKeys: String, CodingKey {
        case return_value, duration_ns, data_out_length, effect, checksum_before, checksum_after, gso_size, lines
    }

    /// `checksum_after` is always there, null where it is not known.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(return_value, forKey: .return_value)
        try container.encode(duration_ns, forKey: .duration_ns)
        try container.encode(data_out_length, forKey: .data_out_length)
        try container.encode(effect, forKey: .effect)
        try container.encode(checksum_before, forKey: .checksum_before)
        try container.encode(checksum_after, forKey: .checksum_after)
        try container.encodeIfPresent(gso_size, forKey: .gso_size)
        try container.encodeIfPresent(lines, forKey: .lines)
    }
}
