#pragma once
// End of VXLAN (RFC 7348) and GRE (RFC 2784, Ethernet and IPv4 inside) tunnels over IPv4. What comes out of one is shown to
// the host; who sent it is learned, and frames to that address go back into the same tunnel.
#include "checksum.h"
#include "hash.h"

#define NEIGHBOURS_MAX 16384
#define NETWORKS_MAX 256
#define VXLAN_PORT 4789
#define VXLAN_HAS_NETWORK bpf_htonl(0x08000000)
#define GRE_KEY bpf_htons(0x2000)
#define GRE_ETHERNET bpf_htons(0x6558)

const volatile __be32 self = bpf_htonl(0x0a000064);             // 10.0.0.100
const volatile __u8 self_mac[ETH_ALEN] = {2, 0, 0, 0, 0, 0x64};

struct vxlan {
    __be32 flags;
    __be32 network;             // in the upper 24 bits
};

struct gre {
    __be16 flags;
    __be16 protocol;
};

enum { TUNNEL_VXLAN, TUNNEL_GRE };

struct neighbour {
    __u8 mac[ETH_ALEN];
    __u16 unused;
};

struct remote {
    __be32 address;
    __be32 network;
    __u32 kind;
    __u8 mac[ETH_ALEN];         // of the next hop to it
    __u16 unused;
};

// Networks (VXLAN's, or GRE's key) that end here, with the priority their frames have outside.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __be32);
    __type(value, __u32);
    __uint(max_entries, NETWORKS_MAX);
} networks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct neighbour);
    __type(value, struct remote);
    __uint(max_entries, NEIGHBOURS_MAX);
} neighbours SEC(".maps");

enum { COUNT_VXLAN, COUNT_GRE, COUNT_GRE_IP, COUNT_STRANGE, COUNT_LEARNED, COUNT_MOVED, COUNT_SENT, COUNTS };

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, COUNTS);
} counters SEC(".maps");

struct state {
    struct remote remote;       // where it came from, or goes to
    __u32 hash;                 // of the inner flow
    __u16 outer;                // bytes to take off
    __u8 has_no_ethernet;       // what is inside is IPv4
    __u8 leaves;
    __u8 tos;
};

static __always_inline void count(__u32 which)
{
    __u64 *counter = bpf_map_lookup_elem(&counters, &which);
    if (counter)
        (*counter)++;
}

static __always_inline int read_vxlan(struct state *s, struct udphdr *udp, void *end)
{
    struct vxlan *vxlan = (void *)(udp + 1);
    if ((void *)(vxlan + 1) > end || udp->dest != bpf_htons(VXLAN_PORT))
        return XDP_PASS;
    if (vxlan->flags != VXLAN_HAS_NETWORK) {
        count(COUNT_STRANGE);
        return XDP_DROP;
    }
    s->remote.kind = TUNNEL_VXLAN;
    s->remote.network = vxlan->network & bpf_htonl(0xffffff00);
    s->outer = sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(*udp) + sizeof(*vxlan);
    count(COUNT_VXLAN);
    return XDP_TX;
}

static __always_inline int read_gre(struct state *s, struct gre *gre, void *end)
{
    if ((void *)(gre + 1) > end)
        return XDP_DROP;
    if (gre->flags & ~GRE_KEY) {
        count(COUNT_STRANGE);       // checksums, sequence numbers, PPTP
        return XDP_DROP;
    }
    s->remote.kind = TUNNEL_GRE;
    s->outer = sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(*gre);
    if (gre->flags & GRE_KEY) {
        __be32 *key = (void *)(gre + 1);
        if ((void *)(key + 1) > end)
            return XDP_DROP;
        s->remote.network = *key;
        s->outer += sizeof(*key);
    }
    if (gre->protocol == bpf_htons(ETH_P_IP)) {
        s->has_no_ethernet = 1;
        s->outer -= sizeof(struct ethhdr);
        count(COUNT_GRE_IP);
        return XDP_TX;
    }
    if (gre->protocol != GRE_ETHERNET) {
        count(COUNT_STRANGE);
        return XDP_PASS;
    }
    count(COUNT_GRE);
    return XDP_TX;
}

// A frame of the host's, to somebody behind a tunnel?
static __always_inline int read_leaving(struct state *s, struct ethhdr *eth, void *end)
{
    struct neighbour key = {};
    __builtin_memcpy(key.mac, eth->h_dest, ETH_ALEN);
    struct remote *remote = bpf_map_lookup_elem(&neighbours, &key);
    if (!remote)
        return XDP_PASS;
    s->remote = *remote;
    s->leaves = 1;
    // Addresses of the inner packet, where it is IPv4: what lies between spreads flows by the outer source port.
    __u32 words[4] = {};
    struct iphdr *ip = (void *)(eth + 1);
    __builtin_memcpy(words, eth, sizeof(*eth) - 2);
    if (eth->h_proto == bpf_htons(ETH_P_IP) && (void *)(ip + 1) <= end) {
        s->tos = ip->tos;
        words[2] ^= ip->saddr;
        words[3] = ip->daddr;
    }
    s->hash = hash_words(words, 4, 0xbeef);
    return XDP_TX;
}

// Step 1: into a tunnel, out of one, or neither. XDP_TX: go on.
static __always_inline int tunnel_read(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    if ((void *)(eth + 1) > end)
        return XDP_DROP;
    struct iphdr *ip = (void *)(eth + 1);
    if (eth->h_proto != bpf_htons(ETH_P_IP) || (void *)(ip + 1) > end || ip->daddr != self)
        return read_leaving(s, eth, end);
    void *l4 = parse_ipv4(ip, end);
    if (!l4 || ip->ihl != 5)
        return XDP_PASS;
    s->remote.address = ip->saddr;
    __builtin_memcpy(s->remote.mac, eth->h_source, ETH_ALEN);
    if (ip->protocol == IPPROTO_UDP)
        return read_vxlan(s, l4, end);
    if (ip->protocol == IPPROTO_GRE)
        return read_gre(s, l4, end);
    return XDP_PASS;
}

// Step 2: only networks that end here; and who is behind which tunnel.
static __always_inline int tunnel_learn(struct xdp_md *ctx, struct state *s)
{
    if (s->leaves)
        return XDP_TX;
    if (!bpf_map_lookup_elem(&networks, &s->remote.network)) {
        count(COUNT_STRANGE);
        return XDP_DROP;
    }
    if (s->has_no_ethernet)
        return XDP_TX;
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u32 outer = s->outer & 0x7f;
    struct ethhdr *inner = data + outer;
    if ((void *)(inner + 1) > end)
        return XDP_DROP;
    if (inner->h_source[0] & 1)
        return XDP_DROP;            // nobody has a group's address
    struct neighbour key = {};
    __builtin_memcpy(key.mac, inner->h_source, ETH_ALEN);
    struct remote *known = bpf_map_lookup_elem(&neighbours, &key);
    if (known && known->address == s->remote.address && known->network == s->remote.network && known->kind == s->remote.kind)
        return XDP_TX;
    count(known ? COUNT_MOVED : COUNT_LEARNED);
    bpf_map_update_elem(&neighbours, &key, &s->remote, BPF_ANY);
    return XDP_TX;
}

static __always_inline int decapsulate(struct xdp_md *ctx, struct state *s)
{
    if (bpf_xdp_adjust_head(ctx, s->outer & 0x7f))
        return XDP_DROP;
    if (!s->has_no_ethernet)
        return XDP_PASS;
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    if ((void *)(eth + 1) > end)
        return XDP_DROP;
    __builtin_memcpy(eth->h_source, s->remote.mac, ETH_ALEN);
#pragma unroll
    for (int i = 0; i < ETH_ALEN; i++)
        eth->h_dest[i] = self_mac[i];
    eth->h_proto = bpf_htons(ETH_P_IP);
    return XDP_PASS;
}

static __always_inline int encapsulate(struct xdp_md *ctx, struct state *s)
{
    _Bool is_vxlan = s->remote.kind == TUNNEL_VXLAN;
    __u32 l4 = is_vxlan ? sizeof(struct udphdr) + sizeof(struct vxlan) : sizeof(struct gre) + sizeof(__be32);
    __u32 frame = (__u32)bpf_xdp_get_buff_len(ctx);
    __u32 *priority = bpf_map_lookup_elem(&networks, &s->remote.network);
    if (bpf_xdp_adjust_head(ctx, -(int)(sizeof(struct ethhdr) + sizeof(struct iphdr) + l4)))
        return XDP_DROP;
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    if ((void *)(ip + 1) > end)
        return XDP_DROP;
    __builtin_memcpy(eth->h_dest, s->remote.mac, ETH_ALEN);
#pragma unroll
    for (int i = 0; i < ETH_ALEN; i++)
        eth->h_source[i] = self_mac[i];
    eth->h_proto = bpf_htons(ETH_P_IP);
    *ip = (struct iphdr){
        .version = 4, .ihl = 5, .tos = priority ? (__u8)*priority : s->tos, .tot_len = bpf_htons((__u16)(sizeof(*ip) + l4 + frame)),
        .frag_off = bpf_htons(0x4000), .ttl = 64, .protocol = is_vxlan ? IPPROTO_UDP : IPPROTO_GRE, .saddr = self, .daddr = s->remote.address,
    };
    ip->check = checksum_ipv4(ip);
    count(COUNT_SENT);
    if (is_vxlan) {
        struct udphdr *udp = (void *)(ip + 1);
        struct vxlan *vxlan = (void *)(udp + 1);
        if ((void *)(vxlan + 1) > end)
            return XDP_DROP;
        *udp = (struct udphdr){.source = bpf_htons((__u16)(0xc000 | (s->hash & 0x3fff))), .dest = bpf_htons(VXLAN_PORT),
                               .len = bpf_htons((__u16)(l4 + frame))};
        *vxlan = (struct vxlan){.flags = VXLAN_HAS_NETWORK, .network = s->remote.network};
        return XDP_TX;
    }
    struct gre *gre = (void *)(ip + 1);
    __be32 *key = (void *)(gre + 1);
    if ((void *)(key + 1) > end)
        return XDP_DROP;
    *gre = (struct gre){.flags = GRE_KEY, .protocol = GRE_ETHERNET};
    *key = s->remote.network;
    return XDP_TX;
}

// Step 3: the packet.
static __always_inline int tunnel_pass(struct xdp_md *ctx, struct state *s)
{
    return s->leaves ? encapsulate(ctx, s) : decapsulate(ctx, s);
}
