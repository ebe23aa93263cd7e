// Drops telnet: a filter that reads addresses and ports.
#include "fixture.h"

SEC("xdp") int ports_drop(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    return tcp->dest == bpf_htons(23) && ip->saddr != bpf_htonl(0x0a000001) ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
