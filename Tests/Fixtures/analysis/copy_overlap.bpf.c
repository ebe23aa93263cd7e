// Makes room in front by moving the first 64 bytes, whatever they are: the TCP checksum is among them.
#include "fixture.h"

SEC("xdp") int copy_overlap(struct xdp_md *ctx)
{
    if (bpf_xdp_adjust_head(ctx, -8))                           // @grow
        return XDP_DROP;
    BEGIN;
    if (data + 72 > end)
        return XDP_DROP;
    __u64 *to = data, *from = data + 8;
#pragma unroll
    for (int i = 0; i < 8; i++)
        to[i] = from[i];                                        // @move
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
