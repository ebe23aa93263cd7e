// Rewrites and keeps the checksum, then refuses what ends in 1: a look behind stores.
#include "fixture.h"

SEC("xdp") int second_look(struct xdp_md *ctx)
{
    UDP_OR_PASS;
    __u16 check = udp->check;                                   // @field
    ip->tos = 4;                                                // @tos
    udp->source = bpf_htons(1000);                              // @port
    if (check & bpf_htons(1))
        return XDP_DROP;
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
