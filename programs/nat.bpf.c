// NAT that maintains checksums by difference, as programs do.
#define NAT_CHECKSUMS 1
#include "nat.h"

SEC("xdp.frags")
int xdp_nat(struct xdp_md *ctx)
{
    count(translate(ctx));
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
