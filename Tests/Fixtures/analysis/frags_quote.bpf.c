// Copies a header with its checksum into the payload: one store of bytes, no pointer.
#include "fixture.h"

SEC("xdp.frags") int program(struct xdp_md *ctx)
{
    UDP_OR_PASS;
    struct udphdr copy;
    if (bpf_xdp_load_bytes(ctx, l4 - data, &copy, sizeof(copy)) < 0)    // @copy
        return XDP_PASS;
    udp->dest = bpf_htons(53);                                          // @port
    bpf_xdp_store_bytes(ctx, 100, &copy, sizeof(copy));                 // @paste
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
