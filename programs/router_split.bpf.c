// The router in three steps.
#include "router.h"
#include "stages.h"

int router_2(struct xdp_md *ctx);
int router_3(struct xdp_md *ctx);
STEPS([0] = (void *)&router_2, [1] = (void *)&router_3);

static __always_inline int first(struct xdp_md *ctx, struct state *state)
{
    stage_begin();
    return router_read(ctx, state);
}

STAGE(router_1, first, 0)
STAGE(router_2, router_find, 1)
STAGE_LAST(router_3, router_forward)

char _license[] SEC("license") = "GPL";
