// One load reads TCP's field, or UDP's behind a store of the program's own: what completes for the one does for the other.
#include "last.h"

SEC("xdp") int one_way(struct xdp_md *ctx)
{
    IPV4_OR_PASS;
    __u32 key = 0, *value = bpf_map_lookup_elem(&last, &key);
    if (!value)
        return XDP_PASS;
    __u32 offset;
    if (ip->protocol == IPPROTO_TCP) {
        offset = 16;
    } else if (ip->protocol == IPPROTO_UDP) {
        if (l4 + 8 > end)
            return XDP_PASS;
        *(volatile __sum16 *)(l4 + 6) = 0;                      // @none
        offset = 6;
    } else {
        return XDP_PASS;
    }
    volatile __sum16 *check = l4 + offset;
    if ((void *)(check + 1) > end)
        return XDP_PASS;
    *value = *check;                                            // @field
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
