// Reads every TCP header field but the checksum, the two beside it included, and counts in a map by flags.
#include "fixture.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 4);
} sums SEC(".maps");

SEC("xdp") int neighbours(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __u32 key = tcp->syn;
    __u64 *value = bpf_map_lookup_elem(&sums, &key);
    if (value)
        *value += tcp->source + tcp->seq + tcp->ack_seq + bpf_ntohs(tcp->window) + tcp->urg_ptr;
    return tcp->doff < 5 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
