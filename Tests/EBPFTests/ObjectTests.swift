import Testing

@testable import EBPF

/// What objects are made of, linked as libbpf links them (which loading compares), and run.
@Suite struct ObjectTests {
    private func load(_ text: String, _ program: String? = nil, flags: [String] = []) throws -> LoadedProgram {
        try ProgramLoader.load(object: try Objects.source(text, flags: flags), program: program, verify: .kernel)
    }

    private func r0(_ program: LoadedProgram, _ packet: [UInt8] = [UInt8](repeating: 0, count: 64)) -> UInt64 {
        (Bench().run(program, packet)).r0
    }

    @Test func globalsOfAllKinds() throws {
        let program = try load("""
            const volatile __u32 constant = 5;
            const volatile __u8 table[] = {1, 2, 3, 4};
            static volatile __u64 initial = 0x1122334455667788;
            volatile __u32 zero[3];
            static volatile const struct { __u16 a, b; } pair SEC(".rodata.pair") = {7, 9};
            SEC("xdp") int globals(struct xdp_md *ctx)
            {
                zero[2] += 1;
                initial += constant;
                return constant + table[2] + zero[2] + pair.b + (initial >> 56);
            }
            """)
        #expect(program.maps.map(\.name).sorted() == [".bss", ".data", ".rodata", ".rodata.pair"])
        #expect(r0(program) == 5 + 3 + 1 + 9 + 0x11)
        #expect(r0(program) == 5 + 3 + 2 + 9 + 0x11)
        #expect(try program.map(named: ".data")?.lookup([0, 0, 0, 0])?.first == 0x88 + 10)
        // The control side may set variables, but not what the verifier took for constants.
        try program.map(named: ".bss")?.update([0, 0, 0, 0], Asm.words([0, 0]).prefix(8) + [100, 0, 0, 0])
        #expect(r0(program) == 5 + 3 + 101 + 9 + 0x11)
        #expect(throws: MapError.frozen) { try program.map(named: ".rodata")?.update([0, 0, 0, 0], [UInt8](repeating: 0, count: 8)) }
    }

    static let several = """
        struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u64); __type(value, __u32); __uint(max_entries, 3); } first SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(key_size, 4); __type(value, __u8[3][8]); __uint(max_entries, 2); } second SEC(".maps");
        static __noinline int leaf(int a) { return a * 3 + (int)bpf_get_smp_processor_id() * 0; }
        static __noinline int middle(int a) { return leaf(a + 1) + leaf(a + 2); }
        __noinline int visible(int a) { return middle(a) + leaf(a); }
        SEC("xdp") int one(struct xdp_md *ctx) { __u32 k = 1; __u64 *v = bpf_map_lookup_elem(&second, &k); return v ? v[2] + middle(1) : 0; }
        SEC("xdp.frags") int two(struct xdp_md *ctx) { return visible(10); }
        SEC("xdp/named") int three(struct xdp_md *ctx) { __u64 k = 4; __u32 v = 2; return bpf_map_update_elem(&first, &k, &v, BPF_EXIST) + visible(1); }
        SEC("tc") int not_xdp(struct __sk_buff *skb) { return 0; }
        """

    @Test func severalProgramsAndSubprograms() throws {
        let one = try load(ObjectTests.several, "one"), two = try load(ObjectTests.several, "two"), three = try load(ObjectTests.several, "three")
        #expect(r0(one) == 6 + 9)
        #expect(r0(two) == 33 + 36 + 30)
        #expect(Int64(bitPattern: r0(three)) == -2 + 6 + 9 + 3)     // -ENOENT
        #expect(one.maps.map(\.name) == ["second"] && two.maps.isEmpty && three.maps.map(\.name) == ["first"])
        #expect([one, two, three].map(\.isFragsAware) == [false, true, false])
        #expect([one, two, three].map(\.section) == ["xdp", "xdp.frags", "xdp/named"])
        #expect(one.maps.first?.definition.valueSize == 24)
    }

    @Test func programNames() throws {
        let path = try Objects.source(ObjectTests.several)
        let unnamed = #expect(throws: LoadError.self) { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }
        #expect(unnamed?.kind == .noSuchProgram)
        #expect(unnamed?.message == "has several programs, name one of them: one, two, three")
        let wrong = #expect(throws: LoadError.self) { try ProgramLoader.load(object: path, program: "four", verify: .kernel) }
        #expect(wrong?.description == "\(path): program four: is not in the object, which has one, two, three")
    }

    /// Instruction set versions 1 to 4 of the same program, on the same packets, with the kernel.
    @Test(arguments: ["v1", "v2", "v3", "v4"]) func instructionSets(_ cpu: String) throws {
        let path = try Objects.source("""
            SEC("xdp") int mixed(struct xdp_md *ctx)
            {
                __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
                if (data + 40 > end) return XDP_DROP;
                __s32 *words = (void *)data;
                __s64 sum = 0;
                for (int i = 0; i < 8; i++) {
                    __s32 a = words[i];
                    __s8 b = (__s8)data[i];
                    sum += b < a ? a ^ b : (__s16)a;
                    sum = (sum << 3) - (sum >> 5) + __builtin_bswap32((__u32)sum);
                    if ((__u32)a > 0x80000000u) sum += (__u32)a % 7 + (__u64)a / 3;
                }
                *(__s64 *)(data + 32) = sum;
                return sum & 1 ? XDP_TX : XDP_PASS;
            }
            """, flags: ["-mcpu=\(cpu)"])
        let program = try ProgramLoader.load(object: path, program: nil, verify: .kernel)
        let kernel = try KernelTwin(object: path)
        var random = SplitMix(11)
        for _ in 0..<1500 {
            let packet = (0..<48).map { _ in UInt8.random(in: 0...255, using: &random) }
            try #require((Bench().run(program, packet)).outcome == kernel.run(packet))
        }
    }

    /// Map operations by a program, with flags, errors and a value pointer kept across an update, as the kernel has it.
    @Test func mapHelpersEqualTheKernel() throws {
        let path = try Objects.source("""
            struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u64); __uint(max_entries, 5); } table SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 5); } list SEC(".maps");
            SEC("xdp") int operate(struct xdp_md *ctx)
            {
                __u64 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
                if (data + 8 > end) return XDP_DROP;
                __u32 key = data[1];
                __u64 value = data[2], flags = data[3];
                void *map = 0;
                __u64 *held = bpf_map_lookup_elem(&table, &key);
                switch (data[0]) {
                case 0: data[4] = bpf_map_update_elem(&table, &key, &value, flags); break;
                case 1: data[4] = bpf_map_delete_elem(&table, &key); break;
                case 2: data[4] = bpf_map_update_elem(&list, &key, &value, flags); break;
                case 3: data[4] = bpf_map_delete_elem(&list, &key); break;
                }
                data[5] = held ? *held : 1;
                held = bpf_map_lookup_elem(&table, &key);
                data[6] = held ? *held : 2;
                held = bpf_map_lookup_elem(&list, &key);
                data[7] = held ? *held : 3;
                return XDP_PASS;
            }
            """)
        let program = try ProgramLoader.load(object: path, program: nil, verify: .kernel)
        let kernel = try KernelTwin(object: path)
        var random = SplitMix(21), codes: Set<UInt64> = []
        for _ in 0..<6000 {
            let flags: UInt64 = [0, 0, 1, 2, 3, 4, 5, 1 << 33].randomElement(using: &random)!
            let packet = Asm.words([UInt64.random(in: 0...3, using: &random), UInt64.random(in: 0..<8, using: &random),
                                    UInt64.random(in: 0...1000, using: &random), flags, 0, 0, 0, 0])
            let run = Bench().run(program, packet)
            try #require(run.outcome == kernel.run(packet), "\(packet)")
            codes.insert(Asm.word(run.bytes, 4))
        }
        #expect(codes == Set([0, -2, -7, -17, -22].map { UInt64(bitPattern: $0) }))
        for map in program.maps { #expect(map.contents == kernel.entries(map.name)) }
    }

    /// Not comparable with the kernel: plausible instead.
    @Test func clocksAndNumbers() throws {
        let program = try load("""
            __u64 times[2];
            __u32 numbers[2];
            __u32 cpu = 1234567;
            SEC("xdp") int other(struct xdp_md *ctx)
            {
                times[0] = bpf_ktime_get_ns();
                times[1] = bpf_ktime_get_ns();
                numbers[0] = bpf_get_prandom_u32();
                numbers[1] = bpf_get_prandom_u32();
                cpu = bpf_get_smp_processor_id();
                return XDP_PASS;
            }
            """)
        _ = r0(program)
        let bss = try #require(try program.map(named: ".bss")?.lookup([0, 0, 0, 0]))
        let words = stride(from: 0, to: bss.count - 7, by: 8).map { Asm.word(bss, $0 / 8) }
        #expect(words.contains { $0 > 1_000_000_000 })
        let cpu = try #require(try program.map(named: ".data")?.lookup([0, 0, 0, 0]))
        #expect(cpu[0] < 250 && cpu[1] == 0 && cpu[2] == 0)
        _ = r0(program)
        #expect(try program.map(named: ".bss")?.lookup([0, 0, 0, 0]) != bss)
    }
}
