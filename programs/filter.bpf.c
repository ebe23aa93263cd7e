// The filter as one program.
#include "filter.h"

SEC("xdp")
int xdp_filter(struct xdp_md *ctx)
{
    struct state state = {};
    int verdict = filter_read(ctx, &state);
    if (verdict == XDP_TX)
        verdict = filter_match(ctx, &state);
    if (verdict == XDP_TX)
        verdict = filter_spend(ctx, &state);
    return verdict;
}

char _license[] SEC("license") = "GPL";
