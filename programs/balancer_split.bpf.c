// The balancer in three steps.
#include "balancer.h"
#include "stages.h"

int balancer_2(struct xdp_md *ctx);
int balancer_3(struct xdp_md *ctx);
STEPS([0] = (void *)&balancer_2, [1] = (void *)&balancer_3);

static __always_inline int first(struct xdp_md *ctx, struct state *state)
{
    stage_begin();
    return balancer_read(ctx, state);
}

STAGE(balancer_1, first, 0)
STAGE(balancer_2, balancer_choose, 1)
STAGE_LAST(balancer_3, balancer_send)

char _license[] SEC("license") = "GPL";
