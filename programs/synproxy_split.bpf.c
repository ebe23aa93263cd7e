// The SYN proxy in three steps, of which a packet takes two.
#include "synproxy.h"
#include "stages.h"

int synproxy_answer(struct xdp_md *ctx);
int synproxy_check(struct xdp_md *ctx);
STEPS([0] = (void *)&synproxy_answer, [1] = (void *)&synproxy_check);

static __always_inline int first(struct xdp_md *ctx, struct state *state)
{
    stage_begin();
    return synproxy_read(ctx, state);
}

STAGE(synproxy_read_step, first, !state->asks)
STAGE_LAST(synproxy_answer, answer)
STAGE_LAST(synproxy_check, check)

char _license[] SEC("license") = "GPL";
