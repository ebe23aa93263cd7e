// The router as one program.
#include "router.h"

SEC("xdp")
int xdp_router(struct xdp_md *ctx)
{
    struct state state = {};
    int verdict = router_read(ctx, &state);
    if (verdict == XDP_TX)
        verdict = router_find(ctx, &state);
    if (verdict == XDP_TX)
        verdict = router_forward(ctx, &state);
    return verdict;
}

char _license[] SEC("license") = "GPL";
