// A tutorial that takes every IPv4 header for 20 bytes long.
#include "fixture.h"

SEC("xdp") int no_options(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    struct tcphdr *tcp = (void *)(ip + 1);
    if ((void *)(tcp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_TCP)
        return XDP_PASS;
    return tcp->dest == bpf_htons(22) && tcp->syn ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
