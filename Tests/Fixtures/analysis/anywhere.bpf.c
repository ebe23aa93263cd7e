// Reads a byte at a place that the packet itself says: it may be the checksum field's in some packets.
#include "fixture.h"

SEC("xdp") int anywhere(struct xdp_md *ctx)
{
    BEGIN;
    if (data + 15 > end)
        return XDP_PASS;
    __u8 *there = data + *(__u8 *)(data + 14);
    if ((void *)(there + 1) > end)
        return XDP_PASS;
    return *there == 7 ? XDP_DROP : XDP_PASS;        // @there
}

char _license[] SEC("license") = "GPL";
