// Answers with a UDP datagram of known size and sums it from nothing: stores 0, then reads it.
#include "fixture.h"

SEC("xdp") int from_scratch(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    struct udphdr *udp = (void *)(ip + 1);
    if (data + 50 > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->protocol != IPPROTO_UDP)
        return XDP_PASS;
    if (udp->len != bpf_htons(16))
        return XDP_PASS;
    udp->dest = bpf_htons(9);                                   // @port
    udp->check = 0;                                             // @zero
    __u32 pseudo[3] = {ip->saddr, ip->daddr, bpf_htonl(IPPROTO_UDP << 16 | 16)};
    __s64 sum = bpf_csum_diff(0, 0, pseudo, 12, 0);
    sum = bpf_csum_diff(0, 0, (__be32 *)udp, 16, sum);
    __u16 check = ~fold16(sum);
    udp->check = check ? check : 0xffff;                        // @check
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
