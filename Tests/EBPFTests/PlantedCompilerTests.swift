import Testing

@testable import Compiler
@testable import EBPF

/// Each rule of the translation broken on purpose: a comparison with the interpreter finds it. The same comparisons find
/// nothing where nothing is broken.
@Suite(.serialized, .timeLimit(.minutes(30))) struct PlantedCompilerTests {
    @Test(arguments: TranslationBug.allCases) func isFound(_ bug: TranslationBug) throws {
        #expect(throws: Twins.Difference.self) { try PlantedCompilerTests.look(for: bug, planted: bug) }
        try PlantedCompilerTests.look(for: bug, planted: nil)
    }

    /// Compares where the bug would show.
    private static func look(for bug: TranslationBug, planted: TranslationBug?) throws {
        switch bug {
        case .unsignedAtLeast: try forms("jump64 3", planted)
        case .signedAbove: try forms("jump64 6", planted)
        case .signExtend32: try forms("alu32 0", planted)
        case .moveSigned32: try forms("movsx 191", planted)
        case .unmaskedShift: try forms("alu64 6 X", planted)
        case .logicalShift: try forms("alu64 12", planted)
        case .divisionByZero: try forms("alu64 3 X", planted)
        case .remainderByZero: try forms("alu32 9 X", planted)
        case .keepsUpperHalf: try forms("swap", planted)
        case .loadSigned: try forms("load signed", planted)
        case .compareExchangeTarget, .noFetch: try forms("atomic", planted)
        case .contextEnd, .headDelta: try adjusting(planted)
        case .noTracking: try own("macswap", planted)
        case .groupedWrites, .farWrites: try own("nat", planted)
        case .repeatedWrites: try source(twice, planted)
        case .noLook: for name in ["verify_drop", "verify_words", "quote_copy", "tcp_zero", "icmp_too_big"] { try fixture(name, planted) }
        case .noBoundsCheck: try bare([Asm.load(Asm.word, 6, 1, 0), Asm.load(Asm.byte, 0, 6, 60), Asm.mov(0, imm: 2), Asm.exit], sandboxed: true, planted)
        case .calleeFrame: try bare(InstructionTests.nested(3), sandboxed: true, planted)
        case .verdict: try bare([Asm.mov(0, imm: 5), Asm.exit], sandboxed: false, planted)
        case .arrayBound: try source(lookups, planted)
        case .lruUse: try source(recent, planted)
        case .hashSeed: try own("count", planted)
        case .hashRest: try source(odd, planted)
        case .checksumSeed: try source(seeds, planted)
        case .tailCallLimit, .tailCallIndex: try helper("tail calls by index", planted)
        case .loopCount: try helper("bpf_loop and its limits", planted)
        case .eventSilence: try helper("perf events nobody reads", planted)
        case .redirectFlags: try helper("redirects without a target", planted)
        case .emptyTarget, .staleMachine: try redirecting(planted)
        case .contextInMemory: for name in ["loop_reads", "loop_sum"] { try fixture(name, planted) }
        }
    }

    private static func forms(_ prefix: String, _ planted: TranslationBug?) throws {
        let forms = InstructionTests.forms.filter { $0.description.hasPrefix(prefix) }
        try #require(!forms.isEmpty)
        // A bug shows in one of the first; without one, these are enough.
        for form in planted == nil ? Array(forms.prefix(4)) : forms {
            let twins = try Twins(planted) { try LoadedProgram.bare(Asm.harness(form.body)) }
            for a in InstructionTests.corners {
                for b in InstructionTests.corners { try twins.compare(Bench(bufferSize: 400), Asm.words([a, b, 0, 0, 0, 0, 0, 0])) }
            }
        }
    }

    private static func bare(_ code: [Instruction], sandboxed: Bool, _ planted: TranslationBug?) throws {
        let twins = try Twins(planted) { try LoadedProgram.bare(code, sandboxed: sandboxed) }
        // What lies behind the packet can be read.
        try twins.compare(Bench(), [UInt8](repeating: 7, count: 60), comparesR0: false)
        try twins.compare(Bench(), [UInt8](repeating: 7, count: 60))
    }

    private static func own(_ name: String, _ planted: TranslationBug?) throws {
        let path = try Objects.program(name)
        try EngineTests.traffic(try Twins(planted) { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }, count: 400)
    }

    private static func fixture(_ name: String, _ planted: TranslationBug?) throws {
        let path = try Objects.fixture(name)
        try EngineTests.traffic(try Twins(planted) { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }, count: 400, partial: true)
    }

    private static func adjusting(_ planted: TranslationBug?) throws {
        let path = try Objects.source(AdjustTests.source)
        let twins = try Twins(planted) { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }
        var random = SplitMix(5)
        for _ in 0..<500 {
            let (commands, size) = AdjustTests.random(&random)
            try twins.compare(Bench(), AdjustTests.packet(commands, size: size, &random))
        }
    }

    /// In bursts, through maps with and without targets; some packets are moved, most are not.
    private static func redirecting(_ planted: TranslationBug?) throws {
        let path = try Objects.source("""
            struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); } devices SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_DEVMAP_HASH); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); } some SEC(".maps");
            SEC("xdp") int redirects(struct xdp_md *ctx)
            {
                __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
                if (data + 20 > end) return XDP_DROP;
                __u32 key = data[16];
                __u64 flags = data[15];
                long answer;
                switch (data[14]) {
                // Nothing adds to nothing, each in its own way, so that the calls stay three.
                case 0: answer = bpf_redirect_map(&devices, key, flags); asm volatile("%0 += 0" : "+r"(answer)); return answer;
                case 1: answer = bpf_redirect_map(&some, key, flags); asm volatile("%0 -= 0" : "+r"(answer)); return answer;
                case 2: return bpf_map_lookup_elem(&devices, &key) ? XDP_TX : XDP_DROP;
                case 3: return bpf_map_lookup_elem(&some, &key) ? XDP_TX : XDP_DROP;
                case 4: return bpf_redirect(key, flags & 1);
                case 5: bpf_xdp_adjust_head(ctx, -4); return XDP_PASS;
                case 6: bpf_xdp_adjust_tail(ctx, -2); answer = bpf_redirect_map(&devices, key, flags & 3); asm volatile("%0 |= 0" : "+r"(answer)); return answer;
                }
                return XDP_PASS;
            }
            """)
        let twins = try Twins(planted) { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }
        for program in [twins.interpreted, twins.compiled] {
            for name in ["devices", "some"] { try program.map(named: name)?.update([1, 0, 0, 0], [2, 0, 0, 0]) }
        }
        var random = SplitMix(11)
        for _ in 0..<100 {
            let packets = (0..<32).map { _ in
                var bytes = (0..<Int.random(in: 60...90, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                bytes[14] = UInt8.random(in: 0...8, using: &random)
                bytes[15] = UInt8.random(in: 0...3, using: &random) | (Bool.random(using: &random) ? 0 : 1 << UInt8.random(in: 2...5, using: &random))
                bytes[16] = UInt8.random(in: 0...5, using: &random)
                return bytes
            }
            try twins.compareBurst(packets)
        }
    }

    private static func helper(_ name: String, _ planted: TranslationBug?) throws {
        guard let test = HelperTests.cases.first(where: { $0.description == name }) else { return }
        let path = try Objects.source("#include <linux/ipv6.h>\n" + HelperTests.source(test))
        try words(path, "helper", limit: test.limit, planted)
    }

    private static func source(_ text: String, _ planted: TranslationBug?) throws { try words(try Objects.source(text), nil, limit: 7, planted) }

    /// Packets of small numbers.
    private static func words(_ path: String, _ program: String?, limit: UInt64, _ planted: TranslationBug?) throws {
        let twins = try Twins(planted) { try ProgramLoader.load(object: path, program: program, verify: .kernel) }
        var random = SplitMix(3)
        for _ in 0..<600 {
            let words = (0..<8).map { _ in UInt64.random(in: 0...limit, using: &random) }
            try twins.compare(Bench(), Asm.words(words + [UInt64](repeating: 0, count: 17)))
        }
        try twins.compareMaps()
    }

    private static func program(_ declarations: String, _ body: String) -> String {
        """
        \(declarations)
        SEC("xdp") int lookups(struct xdp_md *ctx)
        {
            __u64 *in = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
            if (in + 16 > end) return XDP_DROP;
            __u32 key = in[0];
            __u64 value = in[1];
            \(body)
            return XDP_PASS;
        }
        """
    }

    /// Once, or twice, at a place that is known when it runs.
    private static let twice = program("", """
        __u8 *place = (__u8 *)in + 32 + (key & 7);
        if (place + 1 > (__u8 *)end) return XDP_DROP;
        if (value & 1) place[0] = 1;
        asm volatile("" ::: "memory");
        place[0] = 2;
        """)
    private static let lookups = program("""
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 5); } list SEC(".maps");
        """, "in[8] = bpf_map_lookup_elem(&list, &key) ? 1 : 2;")
    private static let recent = program("""
        struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __type(key, __u32); __type(value, __u64); __uint(max_entries, 4); } recent SEC(".maps");
        """, "in[8] = bpf_map_lookup_elem(&recent, &key) ? 1 : 2; key = in[2]; if (in[3] > 3) bpf_map_update_elem(&recent, &key, &value, 0);")
    /// A key that is no multiple of eight bytes.
    private static let odd = program("""
        struct odd { __u8 bytes[11]; };
        struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, struct odd); __type(value, __u64); __uint(max_entries, 400); } odd SEC(".maps");
        """, "struct odd k = {{key, 1, 2, 3, 4, 5, 6, 7, value, 9, in[2]}}; bpf_map_update_elem(&odd, &k, &value, 0); __u64 *v = bpf_map_lookup_elem(&odd, &k); in[8] = v ? *v : 77;")
    private static let seeds = program("", "__u32 from = in[2], to = in[3]; in[8] = bpf_csum_diff(&from, 4, &to, 4, key); in[9] = bpf_csum_diff(0, 0, &to, 4, value);")
}
