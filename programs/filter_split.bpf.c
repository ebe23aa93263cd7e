// The filter in three steps.
#include "filter.h"
#include "stages.h"

int filter_2(struct xdp_md *ctx);
int filter_3(struct xdp_md *ctx);
STEPS([0] = (void *)&filter_2, [1] = (void *)&filter_3);

static __always_inline int first(struct xdp_md *ctx, struct state *state)
{
    stage_begin();
    return filter_read(ctx, state);
}

STAGE(filter_1, first, 0)
STAGE(filter_2, filter_match, 1)
STAGE_LAST(filter_3, filter_spend)

char _license[] SEC("license") = "GPL";
