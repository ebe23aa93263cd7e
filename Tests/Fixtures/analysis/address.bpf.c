// The checksum chooses which byte of a map decides.
#include "fixture.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 1);
} choices SEC(".maps");

SEC("xdp") int address(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __u32 key = 0;
    __u8 *value = bpf_map_lookup_elem(&choices, &key);
    if (!value)
        return XDP_PASS;
    return value[tcp->check & 7] ? XDP_DROP : XDP_PASS;         // @field
}

char _license[] SEC("license") = "GPL";
