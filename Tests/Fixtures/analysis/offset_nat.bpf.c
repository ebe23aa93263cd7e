// A tutorial's NAT: offsets in variables, the checksum by bpf_csum_diff and the tutorial's fold.
#include "fixture.h"

static __always_inline __u16 fold_helper(__u64 sum)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (sum >> 16)
            sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
    BEGIN;
    __u64 offset = sizeof(struct ethhdr);
    struct ethhdr *eth = data;
    struct iphdr *ip = data + offset;
    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP || ip->ihl < 5)
        return XDP_PASS;
    offset += ip->ihl * 4;
    struct udphdr *udp = data + offset;
    if ((void *)(udp + 1) > end)
        return XDP_PASS;
    __be32 old = ip->daddr, new = bpf_htonl(0x0a000002);
    ip->daddr = new;                                                            // @address
    if (udp->check) {                                                           // @zero
        __s64 sum = bpf_csum_diff(&old, 4, &new, 4, ~(__u32)udp->check & 0xffff);
        udp->check = fold_helper(sum) ?: 0xffff;                                // @check
    }
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
