// Says the checksum aloud.
#include "fixture.h"

SEC("xdp") int printk(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    bpf_printk("check %x", tcp->check);                         // @field
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
