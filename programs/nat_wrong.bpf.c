// The same NAT, leaving every checksum wrong: whoever forwards its packets has to mend them.
#define NAT_CHECKSUMS 0
#include "nat.h"

SEC("xdp.frags")
int xdp_nat_wrong(struct xdp_md *ctx)
{
    count(translate(ctx));
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
