// Source NAT in three steps.
#include "masquerade.h"
#include "stages.h"

int masquerade_2(struct xdp_md *ctx);
int masquerade_3(struct xdp_md *ctx);
STEPS([0] = (void *)&masquerade_2, [1] = (void *)&masquerade_3);

static __always_inline int first(struct xdp_md *ctx, struct state *state)
{
    stage_begin();
    return masquerade_read(ctx, state);
}

STAGE(masquerade_1, first, 0)
STAGE(masquerade_2, masquerade_find, 1)
STAGE_LAST(masquerade_3, masquerade_rewrite)

char _license[] SEC("license") = "GPL";
