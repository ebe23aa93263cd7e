// Takes four bits of the type of service for the header's length: where it reads is anybody's guess.
#include "fixture.h"

SEC("xdp") int wrong_length(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_TCP)
        return XDP_PASS;
    __u16 *window = (void *)ip + (ip->tos & 15) * 4 + 14;
    if ((void *)(window + 1) > end)
        return XDP_PASS;
    return *window == 0 ? XDP_DROP : XDP_PASS;                  // @window
}

char _license[] SEC("license") = "GPL";
