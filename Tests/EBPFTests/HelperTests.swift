import CBPF
import Testing

@testable import EBPF

/// Helpers by the kernel's answers: programs that read what to do from the packet and write what came of it back, on the
/// same packets here, in the sandbox and in the kernel.
@Suite struct HelperTests {
    struct Case: CustomStringConvertible {
        let description: String
        /// Before the program, in C.
        var declarations = ""
        /// With `in` (8 words of 8 bytes) and `out` (8 more) in the packet.
        let body: String
        /// The largest number worth trying in `in`.
        var limit: UInt64 = 10
    }

    static let cases: [Case] = [
        Case(description: "bpf_loop and its limits", declarations: """
            struct sum { __u64 total; __u32 stop; };
            static long add(__u32 i, struct sum *s) { s->total += i; return i == s->stop; }
            """, body: """
            struct sum s = {0, in[1]};
            out[0] = bpf_loop(in[0], add, &s, 0);
            out[1] = s.total;
            // Where the verifier inlines the helper, its error has 32 bits.
            out[2] = (__u32)bpf_loop((8 << 20) + 1, add, &s, 0);
            out[3] = bpf_loop(2, add, &s, in[2] > 7);
            """, limit: 40),
        Case(description: "loops in loops", declarations: """
            static long inner(__u32 i, __u64 *s) { *s += i; return 0; }
            static long outer(__u32 i, __u64 *s) { bpf_loop(i & 15, inner, s, 0); *s ^= i; return *s > 900; }
            """, body: "__u64 s = in[1]; out[0] = bpf_loop(in[0], outer, &s, 0); out[1] = s;", limit: 60),
        Case(description: "for_each_map_elem", declarations: """
            struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 7); } list SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u64); __uint(max_entries, 7); } table SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 7); } own SEC(".maps");
            struct state { __u64 sum, stop; };
            static long see(void *map, __u32 *key, __u64 *value, struct state *s) { s->sum += *key * 100 + *value; *value += 1; return *key == s->stop; }
            static long drop(void *map, __u32 *key, __u64 *value, struct state *s) { s->sum += *key * 100 + *value; bpf_map_delete_elem(map, key); return 0; }
            """, body: """
            struct state a = {0, in[0]}, b = {0, 99}, c = {0, in[1]};
            __u32 key = in[2]; __u64 value = in[3];
            bpf_map_update_elem(&table, &key, &value, 0);
            out[0] = bpf_for_each_map_elem(&list, see, &a, 0);
            out[1] = a.sum;
            if (in[4] == 3) out[2] = bpf_for_each_map_elem(&table, drop, &b, 0);
            else out[2] = bpf_for_each_map_elem(&table, see, &b, 0);
            out[3] = b.sum;
            /* What c sums up is this CPU's, and which that is may change from run to run. */
            out[4] = bpf_for_each_map_elem(&own, see, &c, in[5] > 8);
            """),
        Case(description: "tail calls by index", declarations: """
            static int first(struct xdp_md *ctx); 
            struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(key_size, 4); __uint(max_entries, 5); __array(values, int (void *)); } calls SEC(".maps") =
                { .values = { [1] = (void *)&again, [3] = (void *)&other } };
            struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 1); } depth SEC(".maps");
            """, body: """
            __u32 zero = 0; __u64 *d = bpf_map_lookup_elem(&depth, &zero);
            if (d) *d = 0;
            out[0] = 5;
            bpf_tail_call(ctx, &calls, in[0]);
            out[0] = 6;
            """, limit: 7),
        Case(description: "tail calls out of a subprogram", declarations: """
            struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(key_size, 4); __uint(max_entries, 5); __array(values, int (void *)); } calls SEC(".maps") =
                { .values = { [1] = (void *)&leaf } };
            static __noinline int enter(struct xdp_md *ctx, __u32 index) { bpf_tail_call(ctx, &calls, index); return 70 + index; }
            """, body: "out[0] = enter(ctx, in[0]) + 1000;", limit: 3),
        Case(description: "maps in maps", declarations: """
            struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 4); } a SEC(".maps"), b SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __type(key, __u32); __uint(value_size, 4); __uint(max_entries, 5); __array(values, struct inner); } arrays SEC(".maps") =
                { .values = { [0] = &a, [3] = &b } };
            struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __type(key, __u32); __uint(value_size, 4); __uint(max_entries, 5); __array(values, struct inner); } hashes SEC(".maps") =
                { .values = { [2] = &b, [4] = &a } };
            """, body: """
            __u32 key = in[0], index = in[1], other = in[2]; __u64 value = in[3];
            void *map = bpf_map_lookup_elem(&arrays, &key);
            out[0] = 77;
            if (map) { out[0] = bpf_map_update_elem(map, &index, &value, in[4] & 3); __u64 *v = bpf_map_lookup_elem(map, &index); out[1] = v ? *v : 99; }
            map = bpf_map_lookup_elem(&hashes, &other);
            out[2] = 78;
            if (map) { __u64 *v = bpf_map_lookup_elem(map, &index); out[2] = v ? ++*v : 99; }
            """, limit: 5),
        Case(description: "spin locks", declarations: """
            struct value { __u32 before; struct bpf_spin_lock lock; __u64 after; };
            struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, struct value); __uint(max_entries, 5); } table SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, struct value); __uint(max_entries, 5); } list SEC(".maps");
            """, body: """
            __u32 key = in[0]; struct value v = {}; v.before = in[1]; v.after = in[2];
            out[0] = bpf_map_update_elem(&table, &key, &v, in[3]);
            out[1] = bpf_map_update_elem(&list, &key, &v, in[3]);
            struct value *p = bpf_map_lookup_elem(&table, &key);
            if (p) { bpf_spin_lock(&p->lock); p->after += p->before; out[2] = p->after; bpf_spin_unlock(&p->lock); }
            p = bpf_map_lookup_elem(&list, &key);
            if (p) { bpf_spin_lock(&p->lock); p->before++; out[3] = p->before; bpf_spin_unlock(&p->lock); }
            """, limit: 7),
        Case(description: "queues and stacks", declarations: """
            struct { __uint(type, BPF_MAP_TYPE_QUEUE); __type(value, __u64); __uint(max_entries, 3); } queue SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_STACK); __type(value, __u64); __uint(max_entries, 3); } stack SEC(".maps");
            """, body: """
            __u64 value = in[1], got = 5;
            switch (in[0]) {
            case 0: case 1: case 2: out[0] = bpf_map_push_elem(&queue, &value, in[2] & 3); out[1] = bpf_map_push_elem(&stack, &value, in[2] & 3); break;
            case 3: case 4: out[0] = bpf_map_pop_elem(&queue, &got); out[1] = got; out[2] = bpf_map_pop_elem(&stack, &got); out[3] = got; break;
            default: out[0] = bpf_map_peek_elem(&queue, &got); out[1] = got; out[2] = bpf_map_peek_elem(&stack, &got); out[3] = got; break;
            }
            """, limit: 6),
        Case(description: "longest prefixes", declarations: """
            struct key { __u32 length; __u8 bytes[4]; };
            struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __type(key, struct key); __type(value, __u64); __uint(max_entries, 9); __uint(map_flags, BPF_F_NO_PREALLOC); } routes SEC(".maps");
            """, body: """
            struct key key = {in[1] * 3, {10, in[2] << 4, in[3], in[4]}}; __u64 value = in[5] + 1;
            if (in[0] < 4) out[0] = bpf_map_update_elem(&routes, &key, &value, in[6] & 3);
            else if (in[0] < 6) out[0] = bpf_map_delete_elem(&routes, &key);
            key.length = 32;
            __u64 *v = bpf_map_lookup_elem(&routes, &key);
            out[1] = v ? *v : 0;
            """, limit: 10),
        Case(description: "per-CPU maps and LRU with room", declarations: """
            struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __type(key, __u32); __type(value, __u64); __uint(max_entries, 5); } own SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 5); } list SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __type(key, __u32); __type(value, __u64); __uint(max_entries, 500); } recent SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH); __type(key, __u32); __type(value, __u64); __uint(max_entries, 500); } both SEC(".maps");
            """, body: """
            __u32 key = in[0]; __u64 value = in[1], *v;
            out[0] = bpf_map_update_elem(&own, &key, &value, in[2]);
            out[1] = bpf_map_update_elem(&list, &key, &value, in[2]);
            out[2] = bpf_map_update_elem(&recent, &key, &value, in[2]);
            out[3] = bpf_map_update_elem(&both, &key, &value, in[2]);
            if (in[3] == 1) { out[4] = bpf_map_delete_elem(&own, &key) + 10 * bpf_map_delete_elem(&recent, &key) + 100 * bpf_map_delete_elem(&both, &key); }
            v = bpf_map_lookup_elem(&own, &key); out[5] = v ? ++*v : 0;
            v = bpf_map_lookup_elem(&both, &key); out[6] = v ? ++*v : 0;
            v = bpf_map_lookup_percpu_elem(&list, &key, bpf_get_smp_processor_id()); out[7] = v ? ++*v : 0;
            v = bpf_map_lookup_percpu_elem(&own, &key, 100000); out[7] += v ? 1000 : 2000;
            """, limit: 6),
        Case(description: "load_bytes and store_bytes", body: """
            __u8 buffer[16] = {1, 2, 3};
            out[0] = bpf_xdp_load_bytes(ctx, in[0] * 20, buffer, 16);
            out[1] = *(__u64 *)buffer ^ *(__u64 *)(buffer + 8);
            out[2] = bpf_xdp_get_buff_len(ctx);
            out[3] = bpf_xdp_load_bytes(ctx, 70000, buffer, 4);
            bpf_xdp_store_bytes(ctx, 130 + in[1], buffer, 16);
            """, limit: 12),
        Case(description: "numbers from text", body: """
            long a = 1; unsigned long b = 2;
            char text[16];
            __builtin_memcpy(text, (char *)in, 16);
            out[0] = bpf_strtol(text, 16, in[6] & 0x3f, &a); out[1] = a;
            out[2] = bpf_strtoul(text, 16, in[6] & 0x1f, &b); out[3] = b;
            static const char number[] = "  -0x7f rest", large[] = "18446744073709551615", larger[] = "18446744073709551616", octal[] = "0755";
            out[4] = bpf_strtol(number, 12, 0, &a); out[5] = a;
            out[6] = bpf_strtoul(large, 20, 10, &b) * 1000 + bpf_strtoul(larger, 20, 10, &b); out[7] = b;
            out[7] += bpf_strtoul(octal, 4, 0, &b) + b;
            """, limit: 0x3938_3736_2d30),
        Case(description: "text and comparisons", body: """
            static const char fmt[] = "%d %u %x|%llx|%5d|%-4u|%ld%% %c %s", word[] = "word";
            char text[40] = {}, small[4] = {}; __u64 values[] = {in[0], in[1], in[2], in[3] << 33, in[4], in[5], in[6] << 31, 'q', (__u64)word};
            out[0] = bpf_snprintf(text, sizeof(text), fmt, values, sizeof(values));
            __builtin_memcpy(out + 1, text, 40);
            out[6] = bpf_snprintf(small, 4, fmt, values, sizeof(values));
            out[7] = *(__u32 *)small;
            out[6] += bpf_strncmp(text, 4, "2 3 ") * 1000 + bpf_strncmp(text, 2, "10") * 100000;
            """),
        Case(description: "ring buffer's answers", declarations: """
            struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
            """, body: """
            out[0] = bpf_ringbuf_output(&ring, in, 24, in[0] & 7);
            __u64 *r = bpf_ringbuf_reserve(&ring, 16, 0);
            out[1] = !!r;
            if (r) { r[0] = in[1]; r[1] = in[2]; if (in[3] & 1) bpf_ringbuf_submit(r, in[4] & 3); else bpf_ringbuf_discard(r, 0); }
            r = bpf_ringbuf_reserve(&ring, 4096, 0);
            out[2] = !!r;
            if (r) bpf_ringbuf_discard(r, 0);
            out[3] = bpf_ringbuf_query(&ring, in[5]) & 0xffffff;
            out[4] = bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE);
            """),
        Case(description: "redirects without a target", declarations: """
            struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); } devices SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_DEVMAP_HASH); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); } some SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); } cpus SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_XSKMAP); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); } sockets SEC(".maps");
            """, body: """
            out[0] = bpf_redirect_map(&devices, in[0], in[1]); out[1] = bpf_redirect_map(&some, in[0], in[1]);
            out[2] = bpf_redirect_map(&cpus, in[0], in[1]); out[3] = bpf_redirect_map(&sockets, in[0], in[1]);
            out[4] = bpf_redirect(1, in[2]);
            __u32 key = in[0];
            out[5] = !!bpf_map_lookup_elem(&devices, &key) + 2 * !!bpf_map_lookup_elem(&sockets, &key);
            """, limit: 7),
        Case(description: "perf events nobody reads", declarations: """
            struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); __uint(max_entries, 2); } events SEC(".maps");
            """, body: """
            __u64 flags = in[0] == 5 ? BPF_F_CURRENT_CPU : in[0];
            out[0] = bpf_perf_event_output(ctx, &events, flags | in[1] << 35, in, 24);
            out[1] = bpf_perf_event_output(ctx, &events, 1ull << 60, in, 24);
            """, limit: 100),
        Case(description: "SYN cookies", body: """
            struct iphdr ip = {}; struct tcphdr tcp = {}; 
            struct { struct tcphdr tcp; __u8 options[20]; } whole = {};
            ip.saddr = in[0]; ip.daddr = in[1]; tcp.source = in[2]; tcp.seq = in[3];
            whole.tcp = tcp; whole.tcp.doff = 5 + (in[4] & 7);
            whole.options[0] = 1; whole.options[1] = 2; whole.options[2] = 4; whole.options[3] = in[5]; whole.options[4] = in[6] * 40;
            __u32 length = 20 + 4 * (in[4] & 7);
            if (length > 40) length = 40;
            __s64 cookie = bpf_tcp_raw_gen_syncookie_ipv4(&ip, &whole.tcp, length);
            out[0] = cookie < 0 ? cookie : cookie >> 32;
            whole.tcp.seq = bpf_htonl(bpf_ntohl(whole.tcp.seq) + 1);
            whole.tcp.ack_seq = bpf_htonl((__u32)cookie + 1);
            out[1] = bpf_tcp_raw_check_syncookie_ipv4(&ip, &whole.tcp);
            whole.tcp.ack_seq = bpf_htonl((__u32)cookie + 77 + (1 << 26));
            out[2] = bpf_tcp_raw_check_syncookie_ipv4(&ip, &whole.tcp);
            struct ipv6hdr six = {}; six.saddr.in6_u.u6_addr32[1] = in[0];
            whole.tcp.seq = tcp.seq;
            cookie = bpf_tcp_raw_gen_syncookie_ipv6(&six, &whole.tcp, length);
            out[3] = cookie < 0 ? cookie : cookie >> 32;
            whole.tcp.seq = bpf_htonl(bpf_ntohl(whole.tcp.seq) + 1);
            whole.tcp.ack_seq = bpf_htonl((__u32)cookie + 1);
            out[4] = bpf_tcp_raw_check_syncookie_ipv6(&six, &whole.tcp);
            """, limit: 260),
    ]

    /// Programs beside the one under test, for the cases with tail calls.
    static func source(_ test: Case) -> String {
        let hasCalls = test.declarations.contains("PROG_ARRAY")
        let isLeaf = test.declarations.contains("&leaf")
        let others = !hasCalls ? ("", "") : isLeaf ? ("int leaf(struct xdp_md *ctx);\n", """
            SEC("xdp") int leaf(struct xdp_md *ctx)
            {
                __u64 *out = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
                if (out + 16 > end) return 3;
                out[12] = 41;
                return 17;
            }
            """) : ("int again(struct xdp_md *ctx);\nint other(struct xdp_md *ctx);\n", """
            SEC("xdp") int again(struct xdp_md *ctx)
            {
                __u32 zero = 0; __u64 *d = bpf_map_lookup_elem(&depth, &zero);
                __u64 *out = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
                if (out + 16 > end || !d) return 3;
                out[9] = ++*d;
                bpf_tail_call(ctx, &calls, *d == out[1] ? 3 : 1);
                out[10] = 44;
                return XDP_TX;
            }
            SEC("xdp") int other(struct xdp_md *ctx)
            {
                __u64 *out = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
                if (out + 16 > end) return 3;
                out[11] = 45;
                return XDP_DROP;
            }
            """)
        return """
            \(others.0)\(test.declarations)
            SEC("xdp") int helper(struct xdp_md *ctx)
            {
                __u64 *words = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, in[8], out[8] = {};
                if (words + 16 > end) return XDP_DROP;
                __builtin_memcpy(in, words, 64);
                \(test.body)
                words = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
                if (words + 16 > end) return XDP_DROP;
                __builtin_memcpy(words + 8, out, 64);
                return XDP_PASS;
            }
            \(others.1)
            """
    }

    @Test(arguments: cases) func equalsTheKernel(_ test: Case) throws {
        // Values of its own a CPU has in both: this thread must not change it in between.
        let pinned = unsafe apus_twin_pin()
        defer { unsafe apus_twin_unpin(pinned) }
        let path = try Objects.source("#include <linux/ipv6.h>\n" + HelperTests.source(test))
        let trusted = try ProgramLoader.load(object: path, program: "helper", verify: .kernel)
        let sandboxed = try ProgramLoader.load(object: path, program: "helper", verify: .sandbox)
        let kernel = try KernelTwin(object: path, program: "helper")
        var random = SplitMix(UInt64(test.description.utf8.count))
        var answers: Set<[UInt8]> = []
        for number in 0..<3000 {
            let words = (0..<8).map { _ in Bool.random(using: &random) ? UInt64.random(in: 0...test.limit, using: &random) : UInt64.random(in: 0...min(test.limit, 9), using: &random) }
            let size = test.description.contains("bytes") ? Int.random(in: 128...200, using: &random) : 200
            var packet = Asm.words(words + [UInt64](repeating: 0, count: 17))
            packet = Array(packet.prefix(size))
            let theirs = kernel.run(packet)
            let ours = unsafe Bench().run(trusted, packet)
            try #require(ours.outcome == theirs, "\(number): \(words) ours \(HelperTests.out(ours.bytes)) kernel \(HelperTests.out(theirs?.bytes ?? []))")
            let watched = unsafe Bench().run(sandboxed, packet)
            // It prints no strings, and text is all that may differ.
            if !test.description.contains("text and") {
                try #require(watched.outcome == theirs && watched.effect.fault == .none, "\(number): \(words) \(watched.effect.fault) sandbox \(HelperTests.out(watched.bytes)) kernel \(HelperTests.out(theirs?.bytes ?? []))")
            }
            answers.insert(Array(ours.bytes[64..<128]))
            // Full is full for both; then both are emptied.
            if number % 10 == 9, let ring = trusted.map(named: "ring") {
                var records: [[UInt8]] = []
                while let record = ring.nextRecord() { records.append(record) }
                while sandboxed.map(named: "ring")?.nextRecord() != nil {}
                try #require(records == kernel.records("ring"), "\(number)")
            }
        }
        #expect(answers.count > 2, "\(answers.count) different answers")
        for map in trusted.maps where map.definition.type <= 11 && !map.definition.isDataSection && map.definition.type != 3 && map.definition.type != 4 && !map.definition.isPerCPU {
            #expect(map.contents == kernel.entries(map.name), "\(map.name)")
        }
    }

    static func out(_ bytes: [UInt8]) -> [UInt64] { bytes.count < 128 ? [] : (8..<16).map { Asm.word(bytes, $0) } }
}
