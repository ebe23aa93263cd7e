// The field reaches a map's key by way of the stack.
#include "fixture.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u64);
    __type(value, __u64);
    __uint(max_entries, 64);
} seen SEC(".maps");

SEC("xdp") int spill_key(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __u64 key = tcp->source, one = 1;
    key = key << 16 | tcp->check;                               // @field
    bpf_map_update_elem(&seen, &key, &one, BPF_ANY);
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
