#pragma once
// Source NAT for a network behind one address: TCP, UDP and ICMP echo, ICMP errors with the packet they quote. A
// connection is in two tables, one for each way; the port outside comes from a hash, with a few tries.
#include "checksum.h"
#include "hash.h"
#include <linux/icmp.h>

#define CONNECTIONS_MAX 65536
#define PORT_FIRST 20000
#define PORT_COUNT 40000
#define PORT_TRIES 8

const volatile __be32 outside = bpf_htonl(0xc0000201);          // 192.0.2.1
const volatile __be32 inside_network = bpf_htonl(0x0a000000);   // 10.0.0.0/8
const volatile __be32 inside_mask = bpf_htonl(0xff000000);

struct tuple {
    __be32 source, destination;
    __be16 source_port, destination_port;       // of ICMP the echo's id, and 0
    __u8 protocol;
    __u8 unused[3];
};

enum { TCP_OPENING, TCP_OPEN, TCP_CLOSING, NOT_TCP };

struct connection {
    __be32 address;             // what the packet's is rewritten to
    __be16 port;
    __u8 phase;
    __u8 unused;
    __u64 packets;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct tuple);
    __type(value, struct connection);
    __uint(max_entries, CONNECTIONS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} going SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct tuple);
    __type(value, struct connection);
    __uint(max_entries, CONNECTIONS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} coming SEC(".maps");

// Last packet of a connection, for whoever ends the idle ones.
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct tuple);
    __type(value, __u64);
    __uint(max_entries, CONNECTIONS_MAX);
} activity SEC(".maps");

enum { COUNT_NEW, COUNT_OUT, COUNT_IN, COUNT_NO_PORT, COUNT_STRANGER, COUNT_QUOTED, COUNTS };

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, COUNTS);
} counters SEC(".maps");

enum { WAY_OUT, WAY_IN };

struct state {
    struct tuple tuple;
    __u16 l3, l4;
    __u8 way;
    __u8 starts, ends, resets;
    __u8 is_quoted;             // the tuple is of the packet that an ICMP error quotes
    __be32 address;
    __be16 port;
};

static __always_inline void count(__u32 which)
{
    __u64 *counter = bpf_map_lookup_elem(&counters, &which);
    if (counter)
        (*counter)++;
}

static __always_inline int read_l4(struct state *s, __u8 protocol, void *l4, void *end)
{
    s->tuple.protocol = protocol;
    if (protocol == IPPROTO_TCP) {
        struct tcphdr *tcp = l4;
        if ((void *)(tcp + 1) > end)
            return -1;
        s->tuple.source_port = tcp->source, s->tuple.destination_port = tcp->dest;
        s->starts = tcp->syn && !tcp->ack;
        s->ends = tcp->fin;
        s->resets = tcp->rst;
        return 0;
    }
    if (protocol == IPPROTO_UDP) {
        struct udphdr *udp = l4;
        if ((void *)(udp + 1) > end)
            return -1;
        s->tuple.source_port = udp->source, s->tuple.destination_port = udp->dest;
        return 0;
    }
    return -1;
}

// An error on its way in: the packet it quotes is one that left, so its tuple is that of an answer, turned round.
static __always_inline int read_quoted(struct state *s, struct icmphdr *icmp, void *end)
{
    struct iphdr *ip = (void *)(icmp + 1);
    __be16 *ports = (void *)(ip + 1);
    if ((void *)(ports + 4) > end || ip->ihl != 5 || (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP))
        return -1;
    s->tuple = (struct tuple){.source = ip->daddr, .destination = ip->saddr, .source_port = ports[1],
                              .destination_port = ports[0], .protocol = ip->protocol};
    s->is_quoted = 1;
    count(COUNT_QUOTED);
    return 0;
}

static __always_inline int read_icmp(struct state *s, struct icmphdr *icmp, void *end)
{
    if ((void *)(icmp + 1) > end)
        return -1;
    if (s->way == WAY_IN && (icmp->type == ICMP_DEST_UNREACH || icmp->type == ICMP_TIME_EXCEEDED))
        return read_quoted(s, icmp, end);
    if (icmp->type != (s->way == WAY_OUT ? ICMP_ECHO : ICMP_ECHOREPLY))
        return -1;
    s->tuple.protocol = IPPROTO_ICMP;
    if (s->way == WAY_OUT)
        s->tuple.source_port = icmp->un.echo.id;
    else
        s->tuple.destination_port = icmp->un.echo.id;
    return 0;
}

// Step 1: which connection. XDP_TX: go on.
static __always_inline int masquerade_read(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __be16 ethertype;
    struct iphdr *ip = parse_link(data, end, &ethertype);
    if (!ip || ethertype != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    void *l4 = parse_ipv4(ip, end);
    if (!l4 || ip->ihl != 5)
        return XDP_PASS;
    s->l3 = (__u16)((void *)ip - data);
    s->l4 = s->l3 + sizeof(*ip);
    s->way = ip->daddr == outside ? WAY_IN : WAY_OUT;
    if (s->way == WAY_OUT && (ip->saddr & inside_mask) != inside_network)
        return XDP_PASS;
    if (s->way == WAY_OUT && (ip->daddr & inside_mask) == inside_network)
        return XDP_PASS;
    s->tuple.source = ip->saddr, s->tuple.destination = ip->daddr;
    int bad = ip->protocol == IPPROTO_ICMP ? read_icmp(s, l4, end) : read_l4(s, ip->protocol, l4, end);
    return bad ? XDP_PASS : XDP_TX;
}

// A free port outside, and both entries. The tuple of what will come back is `answer`.
static __always_inline struct connection *open_connection(struct state *s)
{
    __u32 hash = hash_words((__u32 *)&s->tuple, sizeof(s->tuple) / 4, 0x0a7);
    struct tuple answer = {.source = s->tuple.destination, .destination = outside, .source_port = s->tuple.destination_port,
                           .protocol = s->tuple.protocol};
    struct connection back = {.address = s->tuple.source, .port = s->tuple.source_port, .phase = NOT_TCP};
    if (s->tuple.protocol == IPPROTO_TCP)
        back.phase = s->starts ? TCP_OPENING : TCP_OPEN;
    for (__u32 i = 0; i < PORT_TRIES; i++) {
        answer.destination_port = bpf_htons((__u16)(PORT_FIRST + (hash + i * 7919) % PORT_COUNT));
        if (bpf_map_update_elem(&coming, &answer, &back, BPF_NOEXIST))
            continue;
        struct connection forth = {.address = outside, .port = answer.destination_port, .phase = back.phase};
        if (bpf_map_update_elem(&going, &s->tuple, &forth, BPF_NOEXIST)) {
            bpf_map_delete_elem(&coming, &answer);
            return NULL;
        }
        count(COUNT_NEW);
        return bpf_map_lookup_elem(&going, &s->tuple);
    }
    return NULL;
}

static __always_inline void follow(struct state *s, struct connection *c)
{
    c->packets++;
    if (s->tuple.protocol != IPPROTO_TCP || s->is_quoted)
        return;
    if (s->ends || s->resets)
        c->phase = TCP_CLOSING;
    else if (c->phase == TCP_OPENING && !s->starts)
        c->phase = TCP_OPEN;
}

// Step 2: its entry, or a new one.
static __always_inline int masquerade_find(struct xdp_md *ctx, struct state *s)
{
    struct connection *c;
    if (s->way == WAY_OUT) {
        c = bpf_map_lookup_elem(&going, &s->tuple);
        // A TCP connection begins with a SYN.
        if (!c && (s->tuple.protocol != IPPROTO_TCP || s->starts))
            c = open_connection(s);
        if (!c) {
            count(COUNT_NO_PORT);
            return XDP_DROP;
        }
        count(COUNT_OUT);
    } else {
        c = bpf_map_lookup_elem(&coming, &s->tuple);
        if (!c) {
            count(COUNT_STRANGER);
            return XDP_PASS;        // for this host itself
        }
        count(COUNT_IN);
    }
    follow(s, c);
    __u64 now = bpf_ktime_get_ns();
    bpf_map_update_elem(&activity, &s->tuple, &now, BPF_ANY);
    s->address = c->address;
    s->port = c->port;
    return XDP_TX;
}

// The address and port of one end, in whatever checksums cover them.
static __always_inline int rewrite(struct state *s, struct iphdr *ip, void *end)
{
    _Bool out = s->way == WAY_OUT;
    __be32 *address = out ? &ip->saddr : &ip->daddr;
    __be32 old = *address;
    void *l4 = ip + 1;
    if (s->tuple.protocol == IPPROTO_TCP) {
        struct tcphdr *tcp = l4;
        if ((void *)(tcp + 1) > end)
            return XDP_DROP;
        __be16 *port = out ? &tcp->source : &tcp->dest;
        checksum_replace32(&tcp->check, old, s->address);
        checksum_replace16(&tcp->check, *port, s->port);
        *port = s->port;
    } else if (s->tuple.protocol == IPPROTO_UDP) {
        struct udphdr *udp = l4;
        if ((void *)(udp + 1) > end)
            return XDP_DROP;
        __be16 *port = out ? &udp->source : &udp->dest;
        if (udp->check) {
            checksum_replace32(&udp->check, old, s->address);
            checksum_replace16(&udp->check, *port, s->port);
            if (!udp->check)
                udp->check = 0xffff;
        }
        *port = s->port;
    } else {
        struct icmphdr *icmp = l4;
        if ((void *)(icmp + 1) > end)
            return XDP_DROP;
        checksum_replace16(&icmp->checksum, icmp->un.echo.id, s->port);
        icmp->un.echo.id = s->port;
    }
    checksum_replace32(&ip->check, old, s->address);
    *address = s->address;
    return XDP_PASS;
}

// Of an ICMP error: the destination outside, and in the packet it quotes the source. ICMP's checksum covers the latter;
// what covers the quoted packet is mostly not here.
static __always_inline int rewrite_quoted(struct state *s, struct iphdr *ip, void *end)
{
    struct icmphdr *icmp = (void *)(ip + 1);
    struct iphdr *inner = (void *)(icmp + 1);
    __be16 *ports = (void *)(inner + 1);
    if ((void *)(ports + 4) > end)
        return XDP_DROP;
    __sum16 before = inner->check;
    checksum_replace32(&inner->check, inner->saddr, s->address);
    checksum_replace16(&icmp->checksum, before, inner->check);
    checksum_replace32(&icmp->checksum, inner->saddr, s->address);
    checksum_replace16(&icmp->checksum, ports[0], s->port);
    inner->saddr = s->address;
    ports[0] = s->port;
    checksum_replace32(&ip->check, ip->daddr, s->address);
    ip->daddr = s->address;
    return XDP_PASS;
}

// Step 3: the packet.
static __always_inline int masquerade_rewrite(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u32 l3 = s->l3 & 0x3f;
    struct iphdr *ip = data + l3;
    if ((void *)(ip + 1) > end)
        return XDP_DROP;
    return s->is_quoted ? rewrite_quoted(s, ip, end) : rewrite(s, ip, end);
}
