// Rewrites a TCP port and keeps the checksum in the way tutorials do: RFC 1624, folded twice.
#include "fixture.h"

SEC("xdp") int nat_port(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __be16 old = tcp->dest, new = bpf_htons(bpf_ntohs(old) - 1);
    __u32 sum = (__u16)~tcp->check + (__u16)~old + new;         // @field
    tcp->dest = new;                                            // @port
    tcp->check = ~fold16(sum);                                  // @check
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
