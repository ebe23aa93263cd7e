// The balancer as one program.
#include "balancer.h"

SEC("xdp")
int xdp_balancer(struct xdp_md *ctx)
{
    struct state state = {};
    int verdict = balancer_read(ctx, &state);
    if (verdict == XDP_TX)
        verdict = balancer_choose(ctx, &state);
    if (verdict == XDP_TX)
        verdict = balancer_send(ctx, &state);
    return verdict;
}

char _license[] SEC("license") = "GPL";
