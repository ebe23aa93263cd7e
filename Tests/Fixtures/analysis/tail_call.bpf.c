// Rewrites a port, then goes on in another program: one that looks, or one that does not.
#include "fixture.h"

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __type(key, __u32);
    __type(value, __u32);
    __uint(max_entries, 2);
} next SEC(".maps");

SEC("xdp") int entry(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    tcp->urg_ptr = 0;                                           // @urgent
    bpf_tail_call(ctx, &next, 1);                               // @call
    return XDP_DROP;
}

SEC("xdp") int looks(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    if (tcp->check & bpf_htons(0x0101))                         // @look
        return XDP_DROP;
    return XDP_PASS;
}

SEC("xdp") int passes(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    return tcp->urg_ptr ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
