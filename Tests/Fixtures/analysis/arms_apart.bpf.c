// The field decides a number, and each arm also learns something else about the packet. Whoever follows the arms apart
// knows the number in both, and must not take it for known.
#include "fixture.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u32);
    __uint(max_entries, 1);
} classes SEC(".maps");

SEC("xdp") int program(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __u32 key = 0, *class = bpf_map_lookup_elem(&classes, &key);
    if (!class)
        return XDP_PASS;
    __u32 weight = 6;
    if (tcp->check == bpf_htons(0x1234)) {      // @field
        if (ip->ihl != 5)
            return XDP_DROP;
        weight = 10;
        asm volatile("" : "+r"(weight));
    }
    weight <<= 1;
    *class = weight;
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
