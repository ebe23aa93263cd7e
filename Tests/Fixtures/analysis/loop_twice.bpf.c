// What one round of the kernel's loop leaves behind the next one puts into a map.
#include "last.h"
#include "walk.h"

static long pass_on(__u32 index, struct walk *walk)
{
    void *data = (void *)(long)walk->ctx->data, *end = (void *)(long)walk->ctx->data_end;
    __u32 key = 0;
    bpf_map_update_elem(&last, &key, &walk->sum, BPF_ANY);
    struct iphdr *ip = data + 14;
    struct tcphdr *tcp = data + 34;
    if ((void *)(tcp + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_TCP)
        return 1;
    walk->sum = tcp->check;                                     // @field
    return 0;
}

SEC("xdp") int loop_twice(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *link = data;
    if ((void *)(link + 1) > end || link->h_proto != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    struct walk walk = {.ctx = ctx};
    bpf_loop(2, pass_on, &walk, 0);
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
