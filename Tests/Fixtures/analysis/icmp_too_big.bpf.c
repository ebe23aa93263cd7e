// A balancer's "packet too big": trims, grows the head, quotes what is left, sums it.
#include "fixture.h"

#define QUOTED 64

SEC("xdp") int icmp_too_big(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
        return XDP_PASS;
    if (end - data < 600)
        return XDP_PASS;
    struct ethhdr old = *eth;
    struct iphdr old_ip = *ip;
    if (bpf_xdp_adjust_tail(ctx, -(int)(end - data - 14 - QUOTED)))     // @trim
        return XDP_DROP;
    if (bpf_xdp_adjust_head(ctx, -28))                          // @grow
        return XDP_DROP;
    data = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
    if (data + 14 + 28 + QUOTED > end)
        return XDP_DROP;
    eth = data;
    ip = data + 14;
    struct icmphdr *icmp = data + 34;
    __builtin_memcpy(eth->h_dest, old.h_source, 6);             // @mac
    __builtin_memcpy(eth->h_source, old.h_dest, 6);             // @mac
    eth->h_proto = bpf_htons(ETH_P_IP);                         // @type
    struct iphdr outer = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_ICMP, .saddr = old_ip.daddr,
                          .daddr = old_ip.saddr, .tot_len = bpf_htons(28 + QUOTED)};
    outer.check = ~fold16(bpf_csum_diff(0, 0, (__be32 *)&outer, 20, 0));
    *ip = outer;                                                // @outer
    *(__u64 *)icmp = 0;                                         // @icmp
    icmp->type = 3;                                             // @icmp
    icmp->code = 4;                                             // @icmp
    icmp->checksum = ~fold16(bpf_csum_diff(0, 0, (__be32 *)icmp, 8 + QUOTED, 0));       // @quote @sum
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
