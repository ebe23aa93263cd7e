#pragma once
// Layer 4 balancer in front of a group of servers. A packet to a service goes to one of its servers unchanged, inside
// another packet (IPIP, GUE, or IPv6 in IPv6), and the server answers the client by itself. A flow stays with its server:
// the connection table remembers it, and where it does not, a ring that loses few places when servers come and go
// decides the same way on every balancer.
#include "checksum.h"
#include "hash.h"
#include "parse.h"
#include <linux/icmp.h>

#define SERVICES_MAX 64
#define SERVERS_MAX 256
#define RING_PLACES 1021            // of each service; prime
#define GUE_PORT 6080
#define TTL_OUTER 64

struct address {
    __be32 words[4];                // IPv4 in the first, the others 0
};

struct service {
    struct address address;
    __be16 port;                    // 0: every port
    __u8 protocol;
    __u8 is_v6;
};

enum { SERVICE_NO_TABLE = 1 };      // flags: the ring decides for each packet, as for DNS

struct service_info {
    __u32 number;
    __u32 flags;
};

enum { SERVER_NONE, SERVER_IPIP, SERVER_GUE, SERVER_IPV6 };

struct server {
    struct address address;
    __u32 kind;
};

struct flow {
    struct address source, destination;
    __be16 source_port, destination_port;
    __u8 protocol;
    __u8 is_v6;
    __u16 unused;
};

struct connection {
    __u32 server;
    __u32 packets;
};

struct counter {
    __u64 packets, bytes;
};

enum { COUNT_TABLE, COUNT_RING, COUNT_ERRORS, COUNT_NO_SERVER, COUNT_FIXED };   // then one a service

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct service);
    __type(value, struct service_info);
    __uint(max_entries, SERVICES_MAX);
} services SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u32);           // number of a server
    __uint(max_entries, SERVICES_MAX * RING_PLACES);
} ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, struct server);
    __uint(max_entries, SERVERS_MAX);
} servers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct flow);
    __type(value, struct connection);
    __uint(max_entries, 65536);
} connections SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, struct counter);
    __uint(max_entries, COUNT_FIXED + SERVICES_MAX);
} counters SEC(".maps");

const volatile struct address self_v6 = {{bpf_htonl(0xfd000000), 0, 0, bpf_htonl(0x99)}};
const volatile __u8 gateway[ETH_ALEN] = {2, 0, 0, 0, 0, 0xfe};

// What one step leaves for the next.
struct state {
    struct flow flow;
    __u32 server;
    __u32 hash;
    __u16 l3;                       // offset of the IP header
    __u8 starts;                    // a TCP SYN
    __u8 tos;
};

static __always_inline void count(__u32 which, __u32 bytes)
{
    struct counter *counter = bpf_map_lookup_elem(&counters, &which);
    if (counter) {
        counter->packets++;
        counter->bytes += bytes;
    }
}

// Ports, and whether a TCP connection starts. An ICMP error quotes a packet of the server's: its ports are the other way
// round.
static __always_inline int read_ports(struct state *s, void *l4, void *end, _Bool is_quoted)
{
    if (s->flow.protocol == IPPROTO_TCP && !is_quoted) {
        struct tcphdr *tcp = l4;
        if ((void *)(tcp + 1) > end)
            return -1;
        s->starts = tcp->syn && !tcp->ack;
    } else if (s->flow.protocol != IPPROTO_UDP && s->flow.protocol != IPPROTO_TCP) {
        return -1;
    }
    __be16 *ports = l4;
    if ((void *)(ports + 2) > end)
        return -1;
    s->flow.source_port = is_quoted ? ports[1] : ports[0];
    s->flow.destination_port = is_quoted ? ports[0] : ports[1];
    return 0;
}

static __always_inline int read_ipv4(struct state *s, struct iphdr *ip, void *end)
{
    void *l4 = parse_ipv4(ip, end);
    if (!l4 || ip->ihl != 5)
        return -1;
    _Bool is_quoted = 0;
    s->tos = ip->tos;
    if (ip->protocol == IPPROTO_ICMP) {
        struct icmphdr *icmp = l4;
        if ((void *)(icmp + 1) > end || icmp->type != ICMP_DEST_UNREACH || icmp->code != ICMP_FRAG_NEEDED)
            return -1;
        count(COUNT_ERRORS, 0);
        ip = (void *)(icmp + 1);
        l4 = ip + 1;
        if (l4 > end || ip->ihl != 5)
            return -1;
        is_quoted = 1;
    }
    s->flow.source.words[0] = is_quoted ? ip->daddr : ip->saddr;
    s->flow.destination.words[0] = is_quoted ? ip->saddr : ip->daddr;
    s->flow.protocol = ip->protocol;
    return read_ports(s, l4, end, is_quoted);
}

static __always_inline int read_ipv6(struct state *s, struct ipv6hdr *ip, void *end)
{
    if ((void *)(ip + 1) > end || ip->version != 6)
        return -1;
    s->tos = (__u8)(ip->priority << 4 | ip->flow_lbl[0] >> 4);
    __builtin_memcpy(&s->flow.source, &ip->saddr, sizeof(s->flow.source));
    __builtin_memcpy(&s->flow.destination, &ip->daddr, sizeof(s->flow.destination));
    s->flow.protocol = ip->nexthdr;
    s->flow.is_v6 = 1;
    return read_ports(s, ip + 1, end, 0);
}

// Step 1: whose packet it is. XDP_TX: go on.
static __always_inline int balancer_read(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __be16 ethertype;
    void *l3 = parse_link(data, end, &ethertype);
    if (!l3 || l3 != data + sizeof(struct ethhdr))
        return XDP_PASS;            // tagged frames belong to somebody else
    s->l3 = sizeof(struct ethhdr);
    if (ethertype == bpf_htons(ETH_P_IP))
        return read_ipv4(s, l3, end) ? XDP_PASS : XDP_TX;
    if (ethertype == bpf_htons(ETH_P_IPV6))
        return read_ipv6(s, l3, end) ? XDP_PASS : XDP_TX;
    return XDP_PASS;
}

static __always_inline struct service_info *find_service(const struct flow *flow)
{
    struct service key = {.address = flow->destination, .port = flow->destination_port, .protocol = flow->protocol, .is_v6 = flow->is_v6};
    struct service_info *info = bpf_map_lookup_elem(&services, &key);
    if (info)
        return info;
    key.port = 0;
    return bpf_map_lookup_elem(&services, &key);
}

// Step 2: which server.
static __always_inline int balancer_choose(struct xdp_md *ctx, struct state *s)
{
    __u32 bytes = (__u32)bpf_xdp_get_buff_len(ctx);
    struct service_info *service = find_service(&s->flow);
    if (!service)
        return XDP_PASS;
    count(COUNT_FIXED + service->number, bytes);
    s->hash = hash_words((__u32 *)&s->flow, sizeof(s->flow) / 4, 0x5eed);
    if (!(service->flags & SERVICE_NO_TABLE) && !s->starts) {
        struct connection *known = bpf_map_lookup_elem(&connections, &s->flow);
        if (known) {
            known->packets++;
            s->server = known->server;
            count(COUNT_TABLE, bytes);
            return XDP_TX;
        }
    }
    __u32 place = service->number * RING_PLACES + s->hash % RING_PLACES;
    __u32 *number = bpf_map_lookup_elem(&ring, &place);
    if (!number)
        return XDP_DROP;
    s->server = *number;
    count(COUNT_RING, bytes);
    if (!(service->flags & SERVICE_NO_TABLE)) {
        struct connection connection = {.server = *number, .packets = 1};
        bpf_map_update_elem(&connections, &s->flow, &connection, BPF_ANY);
    }
    return XDP_TX;
}

// Room in front, and the Ethernet header in it. The old one's addresses were those of the router that sends.
static __always_inline void *grow(struct xdp_md *ctx, int bytes, __be16 ethertype)
{
    if (bpf_xdp_adjust_head(ctx, -bytes))
        return NULL;
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data, *old = data + bytes;
    if ((void *)(old + 1) > end)
        return NULL;
    __builtin_memcpy(eth->h_source, old->h_dest, ETH_ALEN);
#pragma unroll
    for (int i = 0; i < ETH_ALEN; i++)
        eth->h_dest[i] = gateway[i];
    eth->h_proto = ethertype;
    return eth + 1;
}

static __always_inline int encapsulate_ipv4(struct xdp_md *ctx, struct state *s, struct server *server)
{
    _Bool is_gue = server->kind == SERVER_GUE;
    __u8 inner = s->flow.is_v6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
    __u32 payload = (__u32)bpf_xdp_get_buff_len(ctx) - sizeof(struct ethhdr);
    struct iphdr *ip = is_gue ? grow(ctx, sizeof(struct iphdr) + sizeof(struct udphdr), bpf_htons(ETH_P_IP))
                              : grow(ctx, sizeof(struct iphdr), bpf_htons(ETH_P_IP));
    void *end = (void *)(long)ctx->data_end;
    if (!ip || (void *)(ip + 1) > end)
        return XDP_DROP;
    __u32 length = payload + sizeof(*ip) + (is_gue ? sizeof(struct udphdr) : 0);
    *ip = (struct iphdr){
        .version = 4, .ihl = 5, .tos = s->tos, .tot_len = bpf_htons((__u16)length), .ttl = TTL_OUTER,
        .protocol = is_gue ? IPPROTO_UDP : inner,
        // Differs from flow to flow, so that what lies between spreads them.
        .saddr = bpf_htonl(0xac100000 | (s->hash & 0xffff)), .daddr = server->address.words[0],
    };
    ip->check = checksum_ipv4(ip);
    if (is_gue) {
        struct udphdr *udp = (void *)(ip + 1);
        if ((void *)(udp + 1) > end)
            return XDP_DROP;
        *udp = (struct udphdr){.source = bpf_htons((__u16)(s->hash >> 16 | 0xc000)), .dest = bpf_htons(GUE_PORT),
                               .len = bpf_htons((__u16)(payload + sizeof(*udp)))};
    }
    return XDP_TX;
}

static __always_inline int encapsulate_ipv6(struct xdp_md *ctx, struct state *s, struct server *server)
{
    __u32 payload = (__u32)bpf_xdp_get_buff_len(ctx) - sizeof(struct ethhdr);
    struct ipv6hdr *ip = grow(ctx, sizeof(*ip), bpf_htons(ETH_P_IPV6));
    void *end = (void *)(long)ctx->data_end;
    if (!ip || (void *)(ip + 1) > end)
        return XDP_DROP;
    __builtin_memset(ip, 0, sizeof(*ip));
    ip->version = 6;
    ip->payload_len = bpf_htons((__u16)payload);
    ip->nexthdr = s->flow.is_v6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
    ip->hop_limit = TTL_OUTER;
    struct address source = {{self_v6.words[0], self_v6.words[1], bpf_htonl(s->hash), self_v6.words[3]}};
    __builtin_memcpy(&ip->saddr, &source, sizeof(source));
    __builtin_memcpy(&ip->daddr, &server->address, sizeof(server->address));
    return XDP_TX;
}

// Step 3: on its way.
static __always_inline int balancer_send(struct xdp_md *ctx, struct state *s)
{
    struct server *server = bpf_map_lookup_elem(&servers, &s->server);
    if (!server || server->kind == SERVER_NONE) {
        count(COUNT_NO_SERVER, 0);
        return XDP_DROP;
    }
    return server->kind == SERVER_IPV6 ? encapsulate_ipv6(ctx, s, server) : encapsulate_ipv4(ctx, s, server);
}
