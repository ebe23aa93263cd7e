#pragma once
// Packet filter: lists of prefixes, rules by port, and a budget of packets for each source. Who has used his up is held
// back; the least recent are forgotten first.
#include "parse.h"

#define LIST_MAX 4096
#define RULES_MAX 256
#define SOURCES_MAX 65536
#define BUDGET 40

struct prefix_v4 {
    __u32 length;
    __be32 address;
};

struct prefix_v6 {
    __u32 length;
    __be32 address[4];
};

enum { ENTRY_ALLOW = 1, ENTRY_DENY = 2, ENTRY_UNLIMITED = 4 };

struct entry {
    __u32 action;
    __u32 unused;
    __u64 packets;
};

struct rule {
    __u8 protocol;
    __u8 unused;
    __be16 port;
};

struct source {
    __be32 address[4];
};

struct spent {
    __u64 packets, bytes;
};

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct prefix_v4);
    __type(value, struct entry);
    __uint(max_entries, LIST_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} list_v4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct prefix_v6);
    __type(value, struct entry);
    __uint(max_entries, LIST_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} list_v6 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct rule);
    __type(value, struct entry);
    __uint(max_entries, RULES_MAX);
} rules SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct source);
    __type(value, struct spent);
    __uint(max_entries, SOURCES_MAX);
} sources SEC(".maps");

enum { WHY_MALFORMED, WHY_FRAGMENT, WHY_LIST, WHY_RULE, WHY_BUDGET, WHY_SCAN, WHYS };

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, WHYS);
} dropped SEC(".maps");

struct state {
    struct source source;
    struct rule rule;
    __u32 unlimited;
    __u8 is_v6;
};

static __always_inline int drop(__u32 why)
{
    __u64 *counter = bpf_map_lookup_elem(&dropped, &why);
    if (counter)
        (*counter)++;
    return XDP_DROP;
}

// NULL, or flags that no honest TCP sends: SYN with FIN or RST, FIN alone, none at all.
static __always_inline int is_scan(struct tcphdr *tcp)
{
    __u8 flags = ((__u8 *)tcp)[13] & 0x3f;
    return !flags || flags == 0x01 || (flags & 0x03) == 0x03 || (flags & 0x06) == 0x06 || flags == 0x3f;
}

static __always_inline int read_ports(struct state *s, __u8 protocol, void *l4, void *end)
{
    s->rule.protocol = protocol;
    if (protocol == IPPROTO_TCP) {
        struct tcphdr *tcp = l4;
        if ((void *)(tcp + 1) > end)
            return drop(WHY_MALFORMED);
        if (is_scan(tcp))
            return drop(WHY_SCAN);
        s->rule.port = tcp->dest;
    } else if (protocol == IPPROTO_UDP) {
        struct udphdr *udp = l4;
        if ((void *)(udp + 1) > end || bpf_ntohs(udp->len) < sizeof(*udp))
            return drop(WHY_MALFORMED);
        s->rule.port = udp->dest;
    }
    return XDP_TX;
}

// Step 1: who, and what he wants. XDP_TX: go on.
static __always_inline int filter_read(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __be16 ethertype;
    void *l3 = parse_link(data, end, &ethertype);
    if (!l3)
        return drop(WHY_MALFORMED);
    if (ethertype == bpf_htons(ETH_P_IP)) {
        struct iphdr *ip = l3;
        if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5 || bpf_ntohs(ip->tot_len) < ip->ihl * 4)
            return drop(WHY_MALFORMED);
        if (ip->frag_off & bpf_htons(0x1fff))
            return drop(WHY_FRAGMENT);
        s->source.address[0] = ip->saddr;
        return read_ports(s, ip->protocol, l3 + ip->ihl * 4, end);
    }
    if (ethertype == bpf_htons(ETH_P_IPV6)) {
        struct ipv6hdr *ip = l3;
        if ((void *)(ip + 1) > end || ip->version != 6)
            return drop(WHY_MALFORMED);
        s->is_v6 = 1;
        __builtin_memcpy(&s->source, &ip->saddr, sizeof(s->source));
        return read_ports(s, ip->nexthdr, ip + 1, end);
    }
    return XDP_PASS;
}

// Step 2: lists and rules. The most specific prefix decides, then the port.
static __always_inline int filter_match(struct xdp_md *ctx, struct state *s)
{
    struct entry *entry;
    if (s->is_v6) {
        struct prefix_v6 key = {.length = 128};
        __builtin_memcpy(key.address, &s->source, sizeof(key.address));
        entry = bpf_map_lookup_elem(&list_v6, &key);
    } else {
        struct prefix_v4 key = {.length = 32, .address = s->source.address[0]};
        entry = bpf_map_lookup_elem(&list_v4, &key);
    }
    if (entry) {
        __sync_fetch_and_add(&entry->packets, 1);
        if (entry->action & ENTRY_DENY)
            return drop(WHY_LIST);
        if (entry->action & ENTRY_ALLOW)
            return XDP_PASS;
        s->unlimited = entry->action & ENTRY_UNLIMITED;
    }
    entry = bpf_map_lookup_elem(&rules, &s->rule);
    if (entry) {
        __sync_fetch_and_add(&entry->packets, 1);
        if (entry->action & ENTRY_DENY)
            return drop(WHY_RULE);
        s->unlimited |= entry->action & ENTRY_UNLIMITED;
    }
    return XDP_TX;
}

// Step 3: the budget.
static __always_inline int filter_spend(struct xdp_md *ctx, struct state *s)
{
    if (s->unlimited)
        return XDP_PASS;
    struct spent first = {.packets = 1, .bytes = bpf_xdp_get_buff_len(ctx)};
    struct spent *spent = bpf_map_lookup_elem(&sources, &s->source);
    if (!spent) {
        bpf_map_update_elem(&sources, &s->source, &first, BPF_NOEXIST);
        return XDP_PASS;
    }
    spent->bytes += first.bytes;
    return ++spent->packets > BUDGET ? drop(WHY_BUDGET) : XDP_PASS;
}
