// Keeps the checksum by difference; what is added to it is made in a loop of the kernel's.
#include "walk.h"

static long add(__u32 index, struct walk *walk)
{
    walk->sum += index & 0xff;
    return 0;
}

SEC("xdp") int loop_nat(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    struct walk walk = {.ctx = ctx, .sum = (__u16)~tcp->check};  // @field
    walk.sum += (__u16)~tcp->source;
    bpf_loop(4, add, &walk, 0);
    tcp->source = bpf_htons(0 + 1 + 2 + 3);                     // @port
    tcp->check = ~fold16(walk.sum);                             // @check
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
