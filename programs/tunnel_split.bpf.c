// The tunnels' end in three steps.
#include "tunnel.h"
#include "stages.h"

int tunnel_2(struct xdp_md *ctx);
int tunnel_3(struct xdp_md *ctx);
STEPS([0] = (void *)&tunnel_2, [1] = (void *)&tunnel_3);

static __always_inline int first(struct xdp_md *ctx, struct state *state)
{
    stage_begin();
    return tunnel_read(ctx, state);
}

STAGE(tunnel_1, first, 0)
STAGE(tunnel_2, tunnel_learn, 1)
STAGE_LAST(tunnel_3, tunnel_pass)

char _license[] SEC("license") = "GPL";
