// The tunnels' end as one program.
#include "tunnel.h"

SEC("xdp")
int xdp_tunnel(struct xdp_md *ctx)
{
    struct state state = {};
    int verdict = tunnel_read(ctx, &state);
    if (verdict == XDP_TX)
        verdict = tunnel_learn(ctx, &state);
    if (verdict == XDP_TX)
        verdict = tunnel_pass(ctx, &state);
    return verdict;
}

char _license[] SEC("license") = "GPL";
