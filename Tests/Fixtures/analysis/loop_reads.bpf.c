// Adds bytes of the IPv4 header in a loop of the kernel's.
#include "walk.h"

static long add_byte(__u32 index, struct walk *walk)
{
    void *data = (void *)(long)walk->ctx->data, *end = (void *)(long)walk->ctx->data_end;
    __u8 *byte = data + 14 + (index & 15);
    if ((void *)(byte + 1) > end)
        return 1;
    walk->sum += *byte;
    return 0;
}

SEC("xdp") int loop_reads(struct xdp_md *ctx)
{
    struct walk walk = {.ctx = ctx};
    bpf_loop(16, add_byte, &walk, 0);
    return walk.sum & 1 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
