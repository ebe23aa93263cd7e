// A balancer in short: a hash over addresses and ports chooses the server, the packet goes there in IPv4.
#include "fixture.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u32);
    __uint(max_entries, 16);
} servers SEC(".maps");

SEC("xdp") int encapsulate(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
        return XDP_PASS;
    __u32 *ports = (void *)(ip + 1);
    if ((void *)(ports + 1) > end || (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP))
        return XDP_PASS;
    __u32 key = (ip->saddr ^ *ports * 2654435761u) >> 28;
    __u32 *server = bpf_map_lookup_elem(&servers, &key);
    if (!server)
        return XDP_DROP;
    struct ethhdr link = *eth;
    struct iphdr outer = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_IPIP, .saddr = ip->daddr, .daddr = *server};
    outer.tot_len = bpf_htons(bpf_ntohs(ip->tot_len) + 20);
    outer.check = ~fold16(bpf_csum_diff(0, 0, (__be32 *)&outer, 20, 0));
    if (bpf_xdp_adjust_head(ctx, -20))                          // @grow
        return XDP_DROP;
    data = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
    if (data + 34 > end)
        return XDP_DROP;
    *(struct ethhdr *)data = link;                              // @link
    *(struct iphdr *)(data + 14) = outer;                       // @outer
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
