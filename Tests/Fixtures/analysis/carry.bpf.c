// Only the carry of a sum with the field decides: one bit of it is enough.
#include "fixture.h"

SEC("xdp") int carry(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    volatile __u32 sum = tcp->check;                            // @field
    sum += 0x8000;
    return (sum >> 16) & 1 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
