// A chain of bpf_csum_diff over an IPv6 address and both ports.
#include "fixture.h"

static const volatile __be32 to[4] = {0xfd, 0, 0, 0x02000000};

SEC("xdp") int csum_chain(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    struct ipv6hdr *ip = (void *)(eth + 1);
    struct tcphdr *tcp = (void *)(ip + 1);
    if ((void *)(tcp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IPV6) || ip->nexthdr != IPPROTO_TCP)
        return XDP_PASS;
    __be32 new[4] = {to[0], to[1], to[2], to[3]}, ports = bpf_htonl(80 << 16 | 443);
    __s64 sum = bpf_csum_diff((__be32 *)&ip->daddr, 16, new, 16, (__u16)~tcp->check);   // @field
    sum = bpf_csum_diff((__be32 *)&tcp->source, 4, &ports, 4, sum);
    __builtin_memcpy(&ip->daddr, new, 16);                      // @address
    *(__be32 *)&tcp->source = ports;                            // @ports
    tcp->check = ~fold16(sum);                                  // @check
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
