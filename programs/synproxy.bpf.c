// The SYN proxy as one program.
#include "synproxy.h"

SEC("xdp")
int xdp_synproxy(struct xdp_md *ctx)
{
    struct state state = {};
    int verdict = synproxy_read(ctx, &state);
    if (verdict != XDP_TX)
        return verdict;
    return state.asks ? answer(ctx, &state) : check(ctx, &state);
}

char _license[] SEC("license") = "GPL";
