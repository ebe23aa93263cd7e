import Foundation
import Testing

@testable import EBPF

/// `apusctl prog`, as scripts and other people's tests call it.
@Suite(.timeLimit(.minutes(30))) struct ApusctlProgTests {
    private func run(_ arguments: [String], input: [UInt8] = []) throws -> (status: Int32, output: String, errors: String) {
        let process = Process()
        // SwiftPM puts the test program and the products side by side.
        process.executableURL = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: "apusctl")
        process.arguments = arguments
        let (standardInput, output, errors) = (Pipe(), Pipe(), Pipe())
        (process.standardInput, process.standardOutput, process.standardError) = (standardInput, output, errors)
        try process.run()
        try standardInput.fileHandleForWriting.write(contentsOf: Data(input))
        try standardInput.fileHandleForWriting.close()
        let words = [output, errors].map { String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self) }
        process.waitUntilExit()
        return (process.terminationStatus, words[0], words[1])
    }

    private func hex(_ bytes: [UInt8]) -> String {
        bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }

    private func exec(_ code: [Instruction], _ arguments: [String] = []) throws -> (status: Int32, output: String, errors: String) {
        let input = Array(hex(code.flatMap(\.encoded)).utf8)
        let interpreted = try run(["prog", "exec", "--engine", "interpreter"] + arguments, input: input)
        // Compiled it is the same to the letter.
        #expect(try run(["prog", "exec", "--engine", "jit"] + arguments, input: input) == interpreted)
        return interpreted
    }

    @Test func execPrintsR0() throws {
        #expect(try exec([Asm.mov(0, imm: 0x2a), Asm.exit]) == (0, "2a\n", ""))
        #expect(try exec([Asm.mov(0, imm: -1), Asm.exit]) == (0, "ffffffffffffffff\n", ""))
        // r1 and r2: the memory and its size; nothing without it.
        let sum = [Asm.load(Asm.double, 0, 1, 0), Asm.alu(0x0f, 0, 2), Asm.exit]
        #expect(try exec(sum, ["--memory", "0102030405060708 09"]) == (0, "807060504030" + "20a\n", ""))
        #expect(try exec([Asm.mov(0, 1), Asm.alu(0x4f, 0, 2), Asm.exit]) == (0, "0\n", ""))
        #expect(try exec(sum, ["--memory", "0x0100000000000000"]).output == "9\n")
        // Blanks, line ends and 0x do not matter.
        #expect(try run(["prog", "exec"], input: Array("b7 00 00 00 05 00 00 00\n0x9500000000000000\n".utf8)).output == "5\n")
    }

    @Test func execStopsWhatItMust() throws {
        let wild = try exec([Asm.mov(1, imm: 16), Asm.load(Asm.byte, 0, 1, 0), Asm.exit])
        #expect(wild.status == 1 && wild.output == "" && wild.errors.contains("memory that is not its own"))
        let endless = try exec([Instruction(opcode: 0x05, offset: -1), Asm.exit])
        #expect(endless.status == 1 && endless.errors.contains("executed more than"))
        let beyond = try exec([Asm.load(Asm.word, 0, 1, 6), Asm.exit], ["--memory", "0000000000000000"])
        #expect(beyond.status == 1)
        #expect(try exec([Asm.mov(0, imm: 1)]).status == 1)
        for (input, message) in [("b7", "not whole instructions"), ("", "not whole instructions"), ("xyz", "not hexadecimal"), ("b700000005000000", "no instruction")] {
            let refused = try run(["prog", "exec"], input: Array(input.utf8))
            #expect(refused.status == 1 && refused.errors.contains(message) && refused.errors.split(separator: "\n").count == 1, "\(refused)")
        }
        #expect(try run(["prog", "exec", "--memory", "0g"], input: []).status == 1)
        #expect(try run(["prog", "exec", "--engine", "nonsense"], input: []).status == 2)
    }

    static let source = """
        struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); } verdicts SEC(".maps");
        SEC("xdp") int rule(struct xdp_md *ctx)
        {
            __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
            if (data + 20 > end) return XDP_DROP;
            __u32 key = data[14];
            __u32 *verdict = bpf_map_lookup_elem(&verdicts, &key);
            if (!verdict) return XDP_PASS;
            data[15] += 1;
            return *verdict;
        }
        """

    private struct Reply: Decodable, Equatable {
        struct Change: Decodable, Equatable {
            let verdict: String, wrote: Bool, written: [[Int]]
        }
        let return_value: UInt32, duration_ns: UInt64, data_out_length: Int
        let effect: Change
        let checksum_before: String, checksum_after: String?
    }

    @Test(arguments: ["kernel", "sandbox"]) func runSpeaksBpftool(_ verify: String) throws {
        let object = try Objects.source(ApusctlProgTests.source)
        var packet = [UInt8](repeating: 0, count: 60)
        packet[14] = 9
        let input = try Objects.write(packet), output = try Objects.write([])
        let map = try Objects.write(Array("# key and value\n09 00 00 00 = 03000000\n".utf8))
        let common = ["prog", "run", object, "--data-in", input, "--verify", verify]
        let plain = try run(common)
        #expect(plain.status == 0 && plain.output.hasPrefix("Return value: 2 (pass), duration (average): "), "\(plain)")
        let json = try run(common + ["--json", "--map", "verdicts=\(map)", "--data-out", output, "--repeat", "5", "--checksum", "partial,34,16"])
        let reply = try JSONDecoder().decode(Reply.self, from: Data(json.output.utf8))
        #expect(reply.return_value == 3 && reply.data_out_length == 60 && reply.duration_ns > 0)
        #expect(reply.effect == Reply.Change(verdict: "tx", wrote: true, written: [[15, 16]]))
        #expect(reply.checksum_before == "partial,34,16" && reply.checksum_after == nil)
        #expect(json.output.contains("\"checksum_after\":null"))
        packet[15] = 5
        #expect(try Objects.bytes(output) == packet)
        // What the kernel's own tool gives for the same object and packet; without it nothing is compared.
        let untouched = try JSONDecoder().decode(Reply.self, from: Data(try run(common + ["--json", "--checksum", "unnecessary"]).output.utf8))
        #expect(untouched.checksum_after == "unnecessary" && !untouched.effect.wrote)
    }

    static let slow = """
        SEC("xdp") int slow(struct xdp_md *ctx)
        {
            __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
            if (data + 60 > end) return XDP_ABORTED;
            __u64 sum = data[0];
            for (int round = 0; round < 2000; round++) sum = (sum + 0x123456789abcdef) / (data[3] + 3); /* long */
            data[2] = sum; /* once */
            return XDP_PASS;
        }
        """

    /// Two thousand divisions take several times as long as everything else together, whatever the processor.
    @Test func runSaysWhereTheTimeGoes() throws {
        struct Line: Decodable { let source: String, cycles, entries: Double }
        struct Reply: Decodable { let return_value: UInt32, lines: [Line]? }
        let object = try Objects.source(ApusctlProgTests.slow), packet = try Objects.write([UInt8](repeating: 0, count: 60))
        let text = ApusctlProgTests.slow.split(separator: "\n")
        func line(_ tag: String) throws -> String { try #require(text.firstIndex { $0.contains("/* \(tag) */") }.map { "test.bpf.c:\($0 + 1)" }) }
        let asked = ["prog", "run", object, "--data-in", packet, "--repeat", "5000", "--json"]
        let lines = try #require(try JSONDecoder().decode(Reply.self, from: Data(try run(asked + ["--cycles"]).output.utf8)).lines)
        let long = try line("long"), once = try line("once")
        let inLoop = try #require(lines.first { $0.source == long })
        let elsewhere = lines.filter { $0.source != long }.reduce(0) { $0 + $1.cycles }
        #expect(inLoop.cycles > 4 * elsewhere)
        #expect(lines.first { $0.source == once }?.entries == 1)
        #expect(try JSONDecoder().decode(Reply.self, from: Data(try run(asked).output.utf8)).lines == nil)
        #expect(try run(["prog", "run", object, "--data-in", packet, "--repeat", "5000", "--cycles"]).output.contains(" cycles a run, by source line"))
        #expect(try run(["prog", "run", object, "--data-in", packet, "--cycles"]).status != 0)
    }

    @Test func runRefusesClearly() throws {
        let object = try Objects.source(ApusctlProgTests.source), packet = try Objects.write([UInt8](repeating: 0, count: 60))
        let cases: [([String], Int32, String)] = [
            ([object, "--data-in", "/nonexistent"], 1, "/nonexistent cannot be read"),
            ([object, "--data-in", try Objects.write([1])], 1, "a packet has an Ethernet header"),
            (["/nonexistent.o", "--data-in", packet], 1, "/nonexistent.o: cannot be read"),
            ([object, "--data-in", packet, "--program", "other"], 1, "which has rule"),
            ([object, "--data-in", packet, "--map", "verdicts"], 1, "--map is NAME=FILE"),
            ([object, "--data-in", packet, "--map", "other=\(packet)"], 1, "has no map other, but verdicts"),
            ([object, "--data-in", packet, "--map", "verdicts=\(try Objects.write(Array("01 = 02".utf8)))"], 1, "line 1: map verdicts"),
            ([object, "--data-in", packet, "--checksum", "partial,1"], 2, "checksum"),
            ([object, "--data-in", packet, "--repeat", "0"], 2, "--repeat"),
            ([object], 2, "data-in"),
        ]
        for (arguments, status, message) in cases {
            let refused = try run(["prog", "run"] + arguments)
            #expect(refused.status == status && refused.errors.contains(message) && refused.output == "", "\(arguments): \(refused)")
        }
    }
}
