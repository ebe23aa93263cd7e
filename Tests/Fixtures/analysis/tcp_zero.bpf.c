// The same asked of TCP, where 0 is a checksum like any other.
#include "fixture.h"

SEC("xdp") int tcp_zero(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    if (tcp->check == 0)                                        // @zero
        return XDP_DROP;
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
