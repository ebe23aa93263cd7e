// Reads the field, looks at it, and puts back what it read first: a finished checksum must not get its seed back.
#include "fixture.h"

SEC("xdp") int closed_read(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    volatile __sum16 *check = &tcp->check;
    __u16 early = *check;                                       // @early
    if (*check == bpf_htons(0x2a2a))                            // @late
        return XDP_DROP;
    *check = early;                                             // @check
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
