#pragma once
// IPv4 and IPv6 router. Prefixes with a policy of their own come first (drop them, or send them by a fixed neighbour);
// for the rest the host's routing table is asked. What it cannot answer goes to the host's stack.
#include "checksum.h"

#define POLICIES_MAX 1024
#define PORTS_MAX 64
#define FAMILY_IPV4 2
#define FAMILY_IPV6 10
#define FLOW_LABEL_MASK bpf_htonl(0x0fffffff)

struct prefix_v4 {
    __u32 length;
    __be32 address;
};

struct prefix_v6 {
    __u32 length;
    __be32 address[4];
};

enum { POLICY_TABLE, POLICY_DROP, POLICY_NEIGHBOUR };

struct policy {
    __u32 kind;
    __u32 port;                 // key in `ports`
    __u8 source[ETH_ALEN], destination[ETH_ALEN];
};

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct prefix_v4);
    __type(value, struct policy);
    __uint(max_entries, POLICIES_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} policies_v4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct prefix_v6);
    __type(value, struct policy);
    __uint(max_entries, POLICIES_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} policies_v6 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
    __type(key, __u32);
    __type(value, __u32);
    __uint(max_entries, PORTS_MAX);
} ports SEC(".maps");

enum { COUNT_POLICY, COUNT_TABLE, COUNT_STACK, COUNT_EXPIRED, COUNT_TOO_LONG, COUNT_DROPPED, COUNTS };

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, COUNTS);
} counters SEC(".maps");

struct state {
    struct bpf_fib_lookup route;
    struct policy policy;
    __u16 l3;
    __u8 is_v6;
};

static __always_inline void count(__u32 which)
{
    __u64 *counter = bpf_map_lookup_elem(&counters, &which);
    if (counter)
        (*counter)++;
}

// Step 1: what is asked. XDP_TX: go on.
static __always_inline int router_read(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __be16 ethertype;
    void *l3 = parse_link(data, end, &ethertype);
    if (!l3)
        return XDP_DROP;
    s->l3 = (__u16)(l3 - data);
    struct bpf_fib_lookup *route = &s->route;
    if (ethertype == bpf_htons(ETH_P_IP)) {
        struct iphdr *ip = l3;
        if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
            return XDP_DROP;
        if (ip->ihl > 5)
            return XDP_PASS;    // options are for the stack
        if (ip->ttl <= 1) {
            count(COUNT_EXPIRED);
            return XDP_PASS;
        }
        route->family = FAMILY_IPV4;
        route->tos = ip->tos;
        route->l4_protocol = ip->protocol;
        route->tot_len = bpf_ntohs(ip->tot_len);
        route->ipv4_src = ip->saddr;
        route->ipv4_dst = ip->daddr;
    } else if (ethertype == bpf_htons(ETH_P_IPV6)) {
        struct ipv6hdr *ip = l3;
        if ((void *)(ip + 1) > end || ip->version != 6)
            return XDP_DROP;
        if (ip->hop_limit <= 1) {
            count(COUNT_EXPIRED);
            return XDP_PASS;
        }
        s->is_v6 = 1;
        route->family = FAMILY_IPV6;
        route->flowinfo = *(__be32 *)ip & FLOW_LABEL_MASK;
        route->l4_protocol = ip->nexthdr;
        route->tot_len = bpf_ntohs(ip->payload_len);
        __builtin_memcpy(route->ipv6_src, &ip->saddr, sizeof(route->ipv6_src));
        __builtin_memcpy(route->ipv6_dst, &ip->daddr, sizeof(route->ipv6_dst));
    } else {
        return XDP_PASS;
    }
    route->ifindex = ctx->ingress_ifindex;
    return XDP_TX;
}

// Step 2: where to. A policy, or the host's answer put into the form of one.
static __always_inline int router_find(struct xdp_md *ctx, struct state *s)
{
    struct policy *policy;
    if (s->is_v6) {
        struct prefix_v6 key = {.length = 128};
        __builtin_memcpy(key.address, s->route.ipv6_dst, sizeof(key.address));
        policy = bpf_map_lookup_elem(&policies_v6, &key);
    } else {
        struct prefix_v4 key = {.length = 32, .address = s->route.ipv4_dst};
        policy = bpf_map_lookup_elem(&policies_v4, &key);
    }
    if (policy && policy->kind != POLICY_TABLE) {
        count(COUNT_POLICY);
        if (policy->kind == POLICY_DROP) {
            count(COUNT_DROPPED);
            return XDP_DROP;
        }
        s->policy = *policy;
        return XDP_TX;
    }
    long answer = bpf_fib_lookup(ctx, &s->route, sizeof(s->route), 0);
    switch (answer) {
    case BPF_FIB_LKUP_RET_SUCCESS:
        break;
    case BPF_FIB_LKUP_RET_BLACKHOLE:
    case BPF_FIB_LKUP_RET_UNREACHABLE:
    case BPF_FIB_LKUP_RET_PROHIBIT:
        count(COUNT_DROPPED);
        return XDP_DROP;
    case BPF_FIB_LKUP_RET_FRAG_NEEDED:
        count(COUNT_TOO_LONG);
        return XDP_PASS;        // the stack says so to the sender
    default:
        count(COUNT_STACK);
        return XDP_PASS;
    }
    count(COUNT_TABLE);
    s->policy.kind = POLICY_NEIGHBOUR;
    s->policy.port = s->route.ifindex;
    __builtin_memcpy(s->policy.source, s->route.smac, ETH_ALEN);
    __builtin_memcpy(s->policy.destination, s->route.dmac, ETH_ALEN);
    return XDP_TX;
}

// Step 3: the packet.
static __always_inline int router_forward(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    if ((void *)(eth + 1) > end)
        return XDP_DROP;
    __u32 l3 = s->l3 & 0x3f;
    if (s->is_v6) {
        struct ipv6hdr *ip = data + l3;
        if ((void *)(ip + 1) > end)
            return XDP_DROP;
        ip->hop_limit--;
    } else {
        struct iphdr *ip = data + l3;
        if ((void *)(ip + 1) > end)
            return XDP_DROP;
        // One less in the upper byte of a word is one more in the checksum (RFC 1141).
        __u32 check = ip->check + bpf_htons(0x0100);
        ip->check = (__u16)(check + (check >= 0xffff));
        ip->ttl--;
    }
    __builtin_memcpy(eth->h_source, s->policy.source, ETH_ALEN);
    __builtin_memcpy(eth->h_dest, s->policy.destination, ETH_ALEN);
    return (int)bpf_redirect_map(&ports, s->policy.port, XDP_PASS);
}
