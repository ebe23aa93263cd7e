// Swaps the two MAC addresses of a frame and passes it on: between two hosts with static neighbours.
#include "parse.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 1);
} swapped SEC(".maps");

SEC("xdp.frags")
int xdp_macswap(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    __u8 address[ETH_ALEN];
    __u32 key = 0;

    if ((void *)(eth + 1) > end)
        return XDP_PASS;
    __builtin_memcpy(address, eth->h_source, ETH_ALEN);
    __builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
    __builtin_memcpy(eth->h_dest, address, ETH_ALEN);

    __u64 *count = bpf_map_lookup_elem(&swapped, &key);
    if (count)
        __sync_fetch_and_add(count, 1);
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
