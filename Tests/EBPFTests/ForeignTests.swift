import Foundation
import Testing

@testable import EBPF

/// Programs by other people, as Debian ships them: verdict, bytes and map contents equal to the kernel's on the same
/// packets and the same map contents.
@Suite(.timeLimit(.minutes(10))) struct ForeignTests {
    struct Foreign: CustomStringConvertible {
        let path: String
        let program: String
        let section: String

        var description: String { "\(URL(filePath: path).lastPathComponent) \(program)" }
    }

    private static let packets = Int(ProcessInfo.processInfo.environment["APUS_FOREIGN_PACKETS"] ?? "") ?? 10_000

    /// Every XDP program of libxdp1's objects, and of those embedded in xdp-bench and xdp-trafficgen.
    static func all() throws -> [Foreign] {
        let directories = ["/usr/lib/\(machine)-linux-gnu/bpf", "/usr/lib/bpf"]
        var paths: [String] = []
        for directory in directories {
            for name in ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted() where name.hasSuffix(".o") {
                paths.append("\(directory)/\(name)")
            }
        }
        for tool in ["/usr/sbin/xdp-bench", "/usr/sbin/xdp-trafficgen"] where FileManager.default.fileExists(atPath: tool) {
            paths += try embedded(in: tool)
        }
        var seen: Set<String> = []
        var programs: [Foreign] = []
        for path in paths {
            guard let object = try? ObjectFile(name: path, bytes: try Objects.bytes(path)) else { continue }
            for program in object.programs {
                let foreign = Foreign(path: path, program: program.name, section: object.sections[program.section].name)
                let identity = program.name + "\(program.instructions.flatMap(\.encoded))"
                if seen.insert(identity).inserted { programs.append(foreign) }
            }
        }
        return programs
    }

    private static var machine: String {
        var system = utsname()
        _ = unsafe uname(&system)
        return unsafe withUnsafeBytes(of: &system.machine) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// BPF objects inside of an executable: each ELF header for machine 247, up to its section headers' end.
    private static func embedded(in tool: String) throws -> [String] {
        let bytes = try Objects.bytes(tool)
        var paths: [String] = []
        var at = 0
        while at + 64 < bytes.count {
            defer { at += 8 }
            guard bytes[at] == 0x7f, bytes[at + 1] == 0x45, bytes[at + 2] == 0x4c, bytes[at + 3] == 0x46, bytes[at + 18] == 247, bytes[at + 19] == 0 else { continue }
            let table = Int(Asm.word(Array(bytes[(at + 40)..<(at + 48)]), 0)), count = Int(bytes[at + 60]) | Int(bytes[at + 61]) << 8
            guard at + table + count * 64 <= bytes.count else { continue }
            paths.append(try Objects.write(Array(bytes[at..<(at + table + count * 64)])))
        }
        return paths
    }

    /// Contents that make rules bite: flags in every small value, both sides of the traffic's addresses and ports.
    static func fill(_ map: BPFMap, _ kernel: KernelTwin, _ random: inout SplitMix) {
        let definition = map.definition
        guard !definition.isDataSection, [1, 2, 5, 6, 9, 10, 11].contains(definition.type) else { return }
        var keys: [[UInt8]] = []
        switch definition.keySize {
        case 4 where definition.type == 2 || definition.type == 6:
            let ports: [UInt16] = [8080, 80, 5201, 40003]
            keys = ports.flatMap { [[UInt8($0 & 0xff), UInt8($0 >> 8), 0, 0], [UInt8($0 >> 8), UInt8($0 & 0xff), 0, 0]] } + [[0, 0, 0, 0], [1, 0, 0, 0]]
        case 4: keys = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 100]]
        case 6: keys = [Array(Frame.macs[0..<6]), Array(Frame.macs[6..<12])]
        case 16: keys = [[0xfd] + [UInt8](repeating: 0, count: 11) + [10, 0, 0, 1], [0xfd] + [UInt8](repeating: 0, count: 11) + [10, 0, 0, 100]]
        default: return
        }
        for key in keys where definition.type != 2 && definition.type != 6 || Int(key[0]) | Int(key[1]) << 8 < definition.maxEntries {
            // Per-CPU counters of eight bytes with flags in the low bits: xdp-filter's form.
            let one = [UInt8([0x3f, 0x15, 0x2a, 0x3f].randomElement(using: &random)!)] + [UInt8](repeating: 0, count: definition.valueSize - 1)
            let padded = one + [UInt8](repeating: 0, count: (8 - one.count % 8) % 8)
            let value = definition.isPerCPU ? Array(repeating: padded, count: definition.controlValueSize / padded.count).flatMap { $0 } : one
            try? map.update(key, value)
            _ = kernel.update(map.name, key, value, 0)
        }
    }

    @Test func equalTheKernel() throws {
        let programs = try ForeignTests.all()
        // libxdp1 and xdp-tools are packages this test needs.
        try #require(programs.count >= 30, "only \(programs.count) foreign programs found: install libxdp1 and xdp-tools")
        var lines: [String] = [], refused: [String] = [], constant: [String] = []
        for foreign in programs {
            // The tools give these maps a size before they load.
            let object = try ObjectFile(name: foreign.path, bytes: try Objects.bytes(foreign.path))
            var entries: [String: Int] = [:]
            for map in object.maps where map.definition.maxEntries == 0 && !map.definition.isDataSection { entries[map.definition.name] = 4 }
            let program: LoadedProgram, kernel: KernelTwin
            do {
                program = try ProgramLoader.load(object: foreign.path, program: foreign.program, verify: .kernel, entries: entries)
                // The twin is loaded for a device, which BPF_PROG_TEST_RUN needs: one that reads egress_ifindex has none.
                kernel = try KernelTwin(object: foreign.path, program: foreign.program, entries: entries)
            } catch {
                refused.append("\(foreign): \(("\(error)").split(separator: "\n").last ?? "")")
                continue
            }
            var random = SplitMix(8), traffic = Traffic(seed: 31)
            for map in program.maps { ForeignTests.fill(map, kernel, &random) }
            var verdicts: [UInt32: Int] = [:]
            for number in 0..<ForeignTests.packets {
                let (packet, l3Offset) = traffic.next()
                var bench = Bench()
                bench.l3Offset = l3Offset
                bench.filler = 0
                // The kernel's test run comes in on the loopback interface, first queue.
                bench.ingressIndex = 1
                bench.rxQueue = 0
                let ours = unsafe bench.run(program, packet), theirs = kernel.run(packet)
                try #require(ours.outcome == theirs, "\(foreign), packet \(number): \(packet)")
                verdicts[ours.outcome.verdict, default: 0] += 1
            }
            for map in program.maps where [1, 2, 11].contains(map.definition.type) && !map.definition.isDataSection {
                try #require(map.contents == kernel.entries(map.name), "\(foreign): \(map.name)")
            }
            if verdicts.count < 2 { constant.append("\(foreign)") }
            lines.append("\(foreign): verdicts \(verdicts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", "))")
        }
        print("foreign programs: \(lines.count) equal to the kernel over \(ForeignTests.packets) packets each, \(refused.count) refused, \(constant.count) with one verdict only")
        for line in lines { print("  \(line)") }
        for line in refused { print("  refused: \(line)") }
        #expect(lines.count >= 25)
    }
}
