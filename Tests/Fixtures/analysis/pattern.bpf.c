// Matches bytes at a fixed place without parsing: what they are depends on the packet.
#include "fixture.h"

SEC("xdp") int pattern(struct xdp_md *ctx)
{
    BEGIN;
    if (data + 56 > end)
        return XDP_PASS;
    return *(__u32 *)(data + 48) == bpf_htonl(0xdeadbeef) ? XDP_DROP : XDP_PASS;        // @match
}

char _license[] SEC("license") = "GPL";
