// Rewrites the TCP source port; a checksum that comes out as all ones becomes 0.
#include "fixture.h"

SEC("xdp") int all_ones(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __u32 sum = (__u16)~tcp->check + (__u16)~tcp->source + bpf_htons(99);       // @field
    __u16 w = ~fold16(sum);
    if (w == 0xffff)
        w = 0;
    tcp->check = w;                                             // @check
    tcp->source = bpf_htons(99);                                // @port
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
