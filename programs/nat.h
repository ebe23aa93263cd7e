#pragma once
// Destination NAT of a virtual service to a real server, and back on replies: TCP and UDP over IPv4.
//
//   client -> VIP 10.0.0.100:8080   becomes   client -> 10.0.0.2:5201   (8081 and 5202: a second listener)
//   10.0.0.2:5201 -> client         becomes   10.0.0.100:8080 -> client
//
// NAT_CHECKSUMS 1 keeps the IPv4 and L4 checksums, as such programs do; 0 leaves them wrong on purpose.
#include "parse.h"

#ifndef NAT_CHECKSUMS
#error "say whether checksums are kept"
#endif

#define ADDRESS(a, b, c, d) bpf_htonl((a) << 24 | (b) << 16 | (c) << 8 | (d))
#define SERVICES 2

const volatile __be32 vip = ADDRESS(10, 0, 0, 100);
const volatile __be32 server = ADDRESS(10, 0, 0, 2);
const volatile __be16 vip_ports[SERVICES] = {bpf_htons(8080), bpf_htons(8081)};
const volatile __be16 server_ports[SERVICES] = {bpf_htons(5201), bpf_htons(5202)};

enum { COUNT_TO_SERVER, COUNT_TO_CLIENT, COUNT_OTHER, COUNTS };

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, COUNTS);
} counters SEC(".maps");

struct flow {
    __be32 client;
    __be16 port;
    __u8 protocol;
    __u8 service;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct flow);
    __type(value, __u64);       // packets, both ways
    __uint(max_entries, 4096);
} connections SEC(".maps");

static __always_inline void count(__u32 which)
{
    __u64 *counter = bpf_map_lookup_elem(&counters, &which);
    if (counter)
        __sync_fetch_and_add(counter, 1);
}

static __always_inline void count_flow(struct flow *flow)
{
    __u64 *known = bpf_map_lookup_elem(&connections, flow), one = 1;
    if (known)
        __sync_fetch_and_add(known, 1);
    else
        bpf_map_update_elem(&connections, flow, &one, BPF_ANY);
}

static __always_inline __u16 fold(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (__u16)~sum;
}

// RFC 1624 equation 3 for an address: what bpf_csum_diff is for.
static __always_inline void address_changed(__sum16 *check, __be32 from, __be32 to)
{
    __s64 sum = bpf_csum_diff(&from, sizeof(from), &to, sizeof(to), (__u16)~*check);
    *check = fold((__u32)sum);
}

// The same for a port, by hand, with a carry for each addition.
static __always_inline void port_changed(__sum16 *check, __be16 from, __be16 to)
{
    __u32 sum = (__u16)~*check;
    sum += (__u16)~from;
    if (sum > 0xffff)
        sum -= 0xffff;
    sum += to;
    if (sum > 0xffff)
        sum -= 0xffff;
    *check = (__sum16)~sum;
}

// Rewrites one address and one port and keeps the checksums that cover them.
static __always_inline void rewrite(struct iphdr *ip, __be32 *address, __be32 to, __be16 *port, __be16 to_port,
                                    __sum16 *check, _Bool zero_means_none)
{
#if NAT_CHECKSUMS
    address_changed(&ip->check, *address, to);
    // UDP over IPv4: 0 says there is no checksum and stays; one that comes out as 0 is sent as 0xffff.
    if (!zero_means_none || *check) {
        address_changed(check, *address, to);
        port_changed(check, *port, to_port);
        if (zero_means_none && !*check)
            *check = 0xffff;
    }
#endif
    *address = to;
    *port = to_port;
}

static __always_inline int translate(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __be16 ethertype;
    struct iphdr *ip = parse_link(data, end, &ethertype);
    if (!ip || ethertype != bpf_htons(ETH_P_IP))
        return COUNT_OTHER;
    void *l4 = parse_ipv4(ip, end);
    if (!l4)
        return COUNT_OTHER;

    __be16 *source, *destination;
    __sum16 *check;
    _Bool is_udp = ip->protocol == IPPROTO_UDP;
    if (is_udp) {
        struct udphdr *udp = l4;
        if ((void *)(udp + 1) > end)
            return COUNT_OTHER;
        source = &udp->source, destination = &udp->dest, check = &udp->check;
    } else if (ip->protocol == IPPROTO_TCP) {
        struct tcphdr *tcp = l4;
        if ((void *)(tcp + 1) > end)
            return COUNT_OTHER;
        source = &tcp->source, destination = &tcp->dest, check = &tcp->check;
    } else {
        return COUNT_OTHER;
    }

#pragma unroll
    for (int i = 0; i < SERVICES; i++) {
        if (ip->daddr == vip && *destination == vip_ports[i]) {
            struct flow flow = {.client = ip->saddr, .port = *source, .protocol = ip->protocol, .service = i};
            rewrite(ip, &ip->daddr, server, destination, server_ports[i], check, is_udp);
            count_flow(&flow);
            return COUNT_TO_SERVER;
        }
        if (ip->saddr == server && *source == server_ports[i]) {
            struct flow flow = {.client = ip->daddr, .port = *destination, .protocol = ip->protocol, .service = i};
            rewrite(ip, &ip->saddr, vip, source, vip_ports[i], check, is_udp);
            count_flow(&flow);
            return COUNT_TO_CLIENT;
        }
    }
    return COUNT_OTHER;
}
