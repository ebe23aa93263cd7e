// A router's step: TTL down, the IPv4 header checksum with it, new MAC addresses.
#include "fixture.h"

SEC("xdp") int ttl(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ttl <= 1)
        return XDP_PASS;
    __u32 check = ip->check;
    check += bpf_htons(0x0100);
    ip->check = check + (check >= 0xffff);                      // @check
    ip->ttl--;                                                  // @ttl
    eth->h_dest[5] = 1;                                         // @mac
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
