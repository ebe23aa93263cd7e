// Remembers the last TCP checksum seen.
#include "fixture.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u32);
    __uint(max_entries, 1);
} last SEC(".maps");

SEC("xdp") int map_value(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __u32 key = 0, *value = bpf_map_lookup_elem(&last, &key);
    if (value)
        *value = tcp->check;                                    // @field
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
