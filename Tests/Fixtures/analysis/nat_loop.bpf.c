// The same with a carry loop and a fold that jumps, as older balancers have them.
#include "fixture.h"

SEC("xdp") int nat_loop(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __u32 sum = (__u16)~tcp->check;                             // @field
    sum += (__u16)~tcp->source;
    if (sum > 0xffff)
        sum -= 0xffff;
    sum += bpf_htons(4000);
#pragma clang loop unroll(disable)
    for (int i = 0; i < 4; i++)
        if (sum >> 16)
            sum = (sum & 0xffff) + (sum >> 16);
    tcp->source = bpf_htons(4000);                              // @port
    tcp->check = ~sum;                                          // @check
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
