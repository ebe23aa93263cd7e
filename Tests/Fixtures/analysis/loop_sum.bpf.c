// Adds up the words where a TCP header is as a rule, in a loop of the kernel's, and drops what comes to nothing.
#include "walk.h"

static long add_word(__u32 index, struct walk *walk)
{
    void *data = (void *)(long)walk->ctx->data, *end = (void *)(long)walk->ctx->data_end;
    __u16 *word = data + 34 + (index & 15) * 2;
    if ((void *)(word + 1) > end)
        return 1;
    walk->sum += *word;                                         // @word
    return 0;
}

SEC("xdp") int loop_sum(struct xdp_md *ctx)
{
    struct walk walk = {.ctx = ctx};
    bpf_loop(16, add_word, &walk, 0);
    return fold16(walk.sum) == 0xffff ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
