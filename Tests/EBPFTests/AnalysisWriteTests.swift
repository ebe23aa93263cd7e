import Testing

@testable import EBPF

/// Whether a program can write to a packet, said from its instructions: wrong in neither direction for these, never
/// wrong in the dangerous one.
@Suite struct AnalysisWriteTests {
    struct Case: CustomStringConvertible {
        let description: String
        let canWrite: Bool
        let body: String
    }

    static let prologue = """
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 4); } m SEC(".maps");
        static volatile __u64 global;
        static __noinline int store_to(__u8 *at, __u8 *end, int value) { if (at + 1 > end) return 1; *at = value; return 0; }
        static __noinline int sum_of(__u8 *at, __u8 *end) { if (at + 4 > end) return 0; return at[0] + at[3]; }
        static __noinline __u8 *next_of(__u8 *at, __u8 *end) { if (at + 20 > end) return 0; return at + 14; }
        static __noinline void fill(__u64 *at, int value) { at[0] = value; at[1] = value; }
        """

    static let cases: [Case] = [
        Case(description: "nothing", canWrite: false, body: ""),
        Case(description: "stack through a subprogram", canWrite: false, body: "__u64 a[2]; fill(a, 3); if (a[1] == 4) return XDP_DROP;"),
        Case(description: "map value and global", canWrite: false, body: "__u32 k = 0; __u64 *v = bpf_map_lookup_elem(&m, &k); if (v && data + 1 <= end) { *v += *data; __sync_fetch_and_add(v, 2); } global += 1;"),
        Case(description: "reads through a subprogram", canWrite: false, body: "return sum_of(data, end) == 7 ? XDP_DROP : XDP_PASS;"),
        Case(description: "packet as a map's value", canWrite: false, body: "__u32 k = 1; if (data + 8 <= end) bpf_map_update_elem(&m, &k, data, 0);"),
        Case(description: "plain store", canWrite: true, body: "if (data + 1 <= end) *data = 1;"),
        Case(description: "store in a subprogram", canWrite: true, body: "store_to(data, end, 3);"),
        Case(description: "pointer returned by a subprogram", canWrite: true, body: "__u8 *p = next_of(data, end); if (p && p + 1 <= end) *p = 4;"),
        Case(description: "head", canWrite: true, body: "bpf_xdp_adjust_head(ctx, 4);"),
        Case(description: "tail", canWrite: true, body: "bpf_xdp_adjust_tail(ctx, -4);"),
        Case(description: "pointer through the stack", canWrite: true, body: "__u8 *volatile p = data; if (data + 9 <= end) { __u8 *q = p; if (q + 9 <= end) q[8] = 1; }"),
        Case(description: "one path of many", canWrite: true, body: "for (int i = 0; i < 4; i++) { if (data + 30 > end) return XDP_DROP; if (data[i] == 200 + i) data[20] = i; }"),
    ]

    @Test(arguments: cases) func scan(_ test: Case) throws {
        let source = AnalysisWriteTests.prologue + """

            SEC("xdp") int program(struct xdp_md *ctx)
            {
                __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
                \(test.body)
                return XDP_PASS;
            }
            """
        let program = try ProgramLoader.load(object: try Objects.source(source), program: nil, verify: .kernel)
        #expect(program.canWrite == test.canWrite)
    }
}
