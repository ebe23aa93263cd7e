// UDP over IPv4: 0 means there is no checksum, one that comes out as 0 is sent as 0xffff.
#include "fixture.h"

SEC("xdp") int udp_zero(struct xdp_md *ctx)
{
    UDP_OR_PASS;
    if (udp->check) {                                           // @zero
        __u32 sum = (__u16)~udp->check + (__u16)~udp->dest + bpf_htons(53);     // @zero
        __u16 check = ~fold16(sum);
        if (!check)
            check = 0xffff;
        udp->check = check;                                     // @check
    }
    udp->dest = bpf_htons(53);                                  // @port
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
