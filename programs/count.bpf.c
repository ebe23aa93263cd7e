// Reads and counts: packets and bytes by protocol, and by flow. Writes to no packet.
#include "parse.h"

struct counter {
    __u64 packets;
    __u64 bytes;
};

struct flow {
    __u8 source[16];        // IPv4 in the first four bytes
    __u8 destination[16];
    __be16 source_port;
    __be16 destination_port;
    __u8 protocol;
    __u8 version;
    __u8 zero[2];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, struct counter);
    __uint(max_entries, 256);
} protocols SEC(".maps");   // by IP protocol; 255 is everything else

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct flow);
    __type(value, struct counter);
    __uint(max_entries, 4096);
} flows SEC(".maps");

#define NOT_IP 255

static __always_inline void add(struct counter *counter, __u64 bytes)
{
    __sync_fetch_and_add(&counter->packets, 1);
    __sync_fetch_and_add(&counter->bytes, bytes);
}

// A subprogram of its own, as larger programs have them.
static __noinline int count_flow(struct flow *flow, __u64 bytes)
{
    struct counter *known = bpf_map_lookup_elem(&flows, flow);
    if (known) {
        add(known, bytes);
        return 0;
    }
    struct counter first = {.packets = 1, .bytes = bytes};
    return bpf_map_update_elem(&flows, flow, &first, BPF_NOEXIST);
}

static __always_inline void ports(struct flow *flow, void *l4, void *end)
{
    struct udphdr *header = l4;     // TCP begins the same way
    if (flow->protocol != IPPROTO_TCP && flow->protocol != IPPROTO_UDP)
        return;
    if ((void *)(header + 1) > end)
        return;
    flow->source_port = header->source;
    flow->destination_port = header->dest;
}

SEC("xdp.frags")
int xdp_count(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u64 bytes = bpf_xdp_get_buff_len(ctx);    // of a superframe, all segments
    struct flow flow = {};
    __u32 protocol = NOT_IP;
    __be16 ethertype;

    void *l3 = parse_link(data, end, &ethertype);
    if (l3 && ethertype == bpf_htons(ETH_P_IP)) {
        struct iphdr *ip = l3;
        void *l4 = parse_ipv4(ip, end);
        if (l4) {
            flow.version = 4;
            flow.protocol = protocol = ip->protocol;
            __builtin_memcpy(flow.source, &ip->saddr, 4);
            __builtin_memcpy(flow.destination, &ip->daddr, 4);
            ports(&flow, l4, end);
        }
    } else if (l3 && ethertype == bpf_htons(ETH_P_IPV6)) {
        struct ipv6hdr *ip = l3;
        if ((void *)(ip + 1) <= end && ip->version == 6) {
            flow.version = 6;
            flow.protocol = protocol = ip->nexthdr;
            __builtin_memcpy(flow.source, &ip->saddr, 16);
            __builtin_memcpy(flow.destination, &ip->daddr, 16);
            ports(&flow, ip + 1, end);
        }
    }
    struct counter *counter = bpf_map_lookup_elem(&protocols, &protocol);
    if (counter)
        add(counter, bytes);
    if (flow.version)
        count_flow(&flow, bytes);
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
