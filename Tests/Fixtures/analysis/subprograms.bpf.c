// Fold and update are subprograms of their own.
#include "fixture.h"

static __noinline __u32 fold_carries(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    if (sum >> 16)
        return sum - 0xffff;
    return sum;
}

static __noinline void replace(__u16 *check, __u32 from, __u32 to)
{
    *check = ~fold_carries((__u16)~*check + (__u16)~from + to); // @field @check
}

SEC("xdp") int subprograms(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    replace(&tcp->check, tcp->dest, bpf_htons(5000));
    tcp->dest = bpf_htons(5000);                                // @port
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
