// Source NAT as one program.
#include "masquerade.h"

SEC("xdp")
int xdp_masquerade(struct xdp_md *ctx)
{
    struct state state = {};
    int verdict = masquerade_read(ctx, &state);
    if (verdict == XDP_TX)
        verdict = masquerade_find(ctx, &state);
    if (verdict == XDP_TX)
        verdict = masquerade_rewrite(ctx, &state);
    return verdict;
}

char _license[] SEC("license") = "GPL";
