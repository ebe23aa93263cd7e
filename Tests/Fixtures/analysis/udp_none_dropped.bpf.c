// A read-only filter against UDP without checksum.
#include "fixture.h"

SEC("xdp") int udp_none_dropped(struct xdp_md *ctx)
{
    UDP_OR_PASS;
    if (udp->check == 0)                                        // @zero
        return XDP_DROP;
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
