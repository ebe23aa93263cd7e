// Keeps the distance to the L3 header in 16 bits, for which compilers subtract the pointers in 32.
#include "fixture.h"

struct kept { __u16 l3; __u8 other[6]; };

SEC("xdp") int short_distance(struct xdp_md *ctx)
{
    BEGIN;
    struct kept kept = {};
    struct ethhdr *eth = data;
    void *l3 = eth + 1;
    if (l3 + 4 > end)
        return XDP_PASS;
    __be16 type = eth->h_proto;
    if (type == bpf_htons(0x8100)) {
        type = *(__be16 *)(l3 + 2);
        l3 += 4;
    }
    kept.l3 = (__u16)(l3 - data);
    if (type != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    asm volatile("" : : "r"(&kept) : "memory");
    struct iphdr *ip = data + (kept.l3 & 0x3f);
    if ((void *)(ip + 1) > end)
        return XDP_DROP;
    __u32 check = ip->check + bpf_htons(0x0100);
    ip->check = (__u16)(check + (check >= 0xffff));                    // @sum
    ip->ttl--;                                                          // @ttl
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
