// A UDP echo responder: swaps addresses and ports and sends without a checksum.
#include "fixture.h"

SEC("xdp") int respond_zero(struct xdp_md *ctx)
{
    UDP_OR_PASS;
    __be32 address = ip->saddr;
    __be16 port = udp->source;
    ip->saddr = ip->daddr;                                      // @source
    ip->daddr = address;                                        // @destination
    udp->source = udp->dest;                                    // @from
    udp->dest = port;                                           // @to
    udp->check = 0;                                             // @zero
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
