// One store for two zeros: "no checksum", and what arithmetic comes to.
#include "fixture.h"

SEC("xdp") int either_zero(struct xdp_md *ctx)
{
    UDP_OR_PASS;
    __u32 sum = (__u16)~udp->check + (__u16)~udp->dest + bpf_htons(53);     // @field
    __u16 check = ~fold16(sum);
    if (udp->source == bpf_htons(7))                            // @field
        check = 0;
    udp->check = check;                                         // @check
    udp->dest = bpf_htons(53);                                  // @port
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
