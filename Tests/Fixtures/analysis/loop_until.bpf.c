// How often the kernel's loop goes round depends on the checksum, and so does the verdict.
#include "walk.h"

static long until(__u32 index, struct walk *walk)
{
    return index == walk->sum;
}

SEC("xdp") int loop_until(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    struct walk walk = {.ctx = ctx, .sum = tcp->check & 15};     // @field
    return bpf_loop(16, until, &walk, 0) > 8 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
