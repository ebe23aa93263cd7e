// Takes a VLAN tag away: twelve bytes of addresses move by four.
#include "fixture.h"

SEC("xdp") int vlan_pop(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    if (data + 18 > end || eth->h_proto != bpf_htons(ETH_P_8021Q))
        return XDP_PASS;
    __u8 addresses[12];
    __builtin_memcpy(addresses, data, 12);
    if (bpf_xdp_adjust_head(ctx, 4))                            // @pop
        return XDP_DROP;
    data = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
    if (data + 14 > end)
        return XDP_DROP;
    __builtin_memcpy(data, addresses, 12);                      // @addresses
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
