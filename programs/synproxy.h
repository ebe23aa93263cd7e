#pragma once
// Keeps SYN floods from a server: a SYN is answered here, with a cookie for a sequence number and nothing remembered.
// Who returns the cookie has an address of its own; the connection is reset, the client tries again, and this time its
// packets pass.
#include "checksum.h"

#define CLIENTS_MAX 65536
#define SEGMENT_SIZE 1460
#define SEGMENT_SIZE_V6 1440
#define REPLY_TCP 24                // header with the option for the segment size

struct client {
    __be32 address[4];
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct client);
    __type(value, __u64);           // packets since
    __uint(max_entries, CLIENTS_MAX);
} proved SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __be16);
    __type(value, __u8);
    __uint(max_entries, 64);
} guarded SEC(".maps");             // ports

enum { COUNT_ASKED, COUNT_PROVED, COUNT_FORGED, COUNT_PASSED, COUNTS };

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, COUNTS);
} counters SEC(".maps");

struct state {
    struct client client;
    __u16 l4;
    __u8 is_v6;
    __u8 asks;                      // a SYN, to be answered by a cookie
};

static __always_inline void count(__u32 which)
{
    __u64 *counter = bpf_map_lookup_elem(&counters, &which);
    if (counter)
        (*counter)++;
}

// Step 1: whether it is for us. XDP_TX: go on.
static __always_inline int synproxy_read(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    if ((void *)(eth + 1) > end)
        return XDP_DROP;
    struct tcphdr *tcp;
    if (eth->h_proto == bpf_htons(ETH_P_IP)) {
        struct iphdr *ip = (void *)(eth + 1);
        tcp = parse_ipv4(ip, end);
        if (!tcp || ip->ihl != 5 || ip->protocol != IPPROTO_TCP)
            return XDP_PASS;
        s->client.address[0] = ip->saddr;
        s->l4 = sizeof(*eth) + sizeof(*ip);
    } else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
        struct ipv6hdr *ip = (void *)(eth + 1);
        tcp = (void *)(ip + 1);
        if ((void *)tcp > end || ip->nexthdr != IPPROTO_TCP)
            return XDP_PASS;
        __builtin_memcpy(&s->client, &ip->saddr, sizeof(s->client));
        s->l4 = sizeof(*eth) + sizeof(*ip);
        s->is_v6 = 1;
    } else {
        return XDP_PASS;
    }
    if ((void *)(tcp + 1) > end || tcp->doff < 5)
        return XDP_DROP;
    __be16 port = tcp->dest;
    if (!bpf_map_lookup_elem(&guarded, &port))
        return XDP_PASS;
    __u64 *packets = bpf_map_lookup_elem(&proved, &s->client);
    if (packets) {
        (*packets)++;
        count(COUNT_PASSED);
        return XDP_PASS;
    }
    if (tcp->rst || tcp->fin || (tcp->syn && tcp->ack))
        return XDP_DROP;
    s->asks = tcp->syn;
    return XDP_TX;
}

static __always_inline void swap_ends(void *data, struct state *s, struct tcphdr *tcp)
{
    struct ethhdr *eth = data;
    __u8 mac[ETH_ALEN];
    __builtin_memcpy(mac, eth->h_source, ETH_ALEN);
    __builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
    __builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
    __be16 port = tcp->source;
    tcp->source = tcp->dest;
    tcp->dest = port;
}

// Lengths, checksums and addresses of an answer whose TCP header has `size` bytes.
static __always_inline int finish(struct xdp_md *ctx, struct state *s, __u32 size)
{
    __u32 l4 = s->is_v6 ? sizeof(struct ethhdr) + sizeof(struct ipv6hdr) : sizeof(struct ethhdr) + sizeof(struct iphdr);
    if (bpf_xdp_adjust_tail(ctx, (int)(l4 + size) - (int)bpf_xdp_get_buff_len(ctx)))
        return XDP_DROP;
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __s64 sum;
    if (s->is_v6) {
        struct ipv6hdr *ip = data + sizeof(struct ethhdr);
        struct tcphdr *tcp = (void *)(ip + 1);
        if ((void *)(tcp + 1) > end)
            return XDP_DROP;
        struct in6_addr address = ip->saddr;
        ip->saddr = ip->daddr;
        ip->daddr = address;
        ip->payload_len = bpf_htons((__u16)size);
        ip->hop_limit = 64;
        tcp->check = 0;
        sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip->saddr, 32, bpf_htons(IPPROTO_TCP) + bpf_htons((__u16)size));
        if (size == REPLY_TCP && (void *)tcp + REPLY_TCP <= end)
            sum = bpf_csum_diff(NULL, 0, (__be32 *)tcp, REPLY_TCP, (__u32)sum);
        else
            sum = bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp), (__u32)sum);
        tcp->check = checksum_fold((__u32)sum);
        return XDP_TX;
    }
    struct iphdr *ip = data + sizeof(struct ethhdr);
    struct tcphdr *tcp = (void *)(ip + 1);
    if ((void *)(tcp + 1) > end)
        return XDP_DROP;
    __be32 address = ip->saddr;
    ip->saddr = ip->daddr;
    ip->daddr = address;
    ip->tot_len = bpf_htons((__u16)(sizeof(*ip) + size));
    ip->ttl = 64;
    ip->id = 0;
    ip->frag_off = bpf_htons(0x4000);
    ip->check = 0;
    ip->check = checksum_ipv4(ip);
    tcp->check = 0;
    sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip->saddr, 8, bpf_htons(IPPROTO_TCP) + bpf_htons((__u16)size));
    if (size == REPLY_TCP && (void *)tcp + REPLY_TCP <= end)
        sum = bpf_csum_diff(NULL, 0, (__be32 *)tcp, REPLY_TCP, (__u32)sum);
    else
        sum = bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp), (__u32)sum);
    tcp->check = checksum_fold((__u32)sum);
    return XDP_TX;
}

// A SYN with all of its options in reach is answered by SYN and ACK.
static __always_inline int answer(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u32 l4 = s->is_v6 ? sizeof(struct ethhdr) + sizeof(struct ipv6hdr) : sizeof(struct ethhdr) + sizeof(struct iphdr);
    struct tcphdr *tcp = data + l4;
    if ((void *)(tcp + 1) > end)
        return XDP_DROP;
    __u32 size = tcp->doff * 4;
    if (size < sizeof(*tcp) || (void *)tcp + size > end)
        return XDP_DROP;
    // The helper reads as much as the header says: 60 bytes must be there for the verifier.
    if (data + l4 + 60 > end) {
        if (bpf_xdp_adjust_tail(ctx, 60))
            return XDP_DROP;
        data = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
        tcp = data + l4;
        if ((void *)tcp + 60 > end)
            return XDP_DROP;
    }
    __s64 cookie = s->is_v6 ? bpf_tcp_raw_gen_syncookie_ipv6(data + sizeof(struct ethhdr), tcp, size)
                            : bpf_tcp_raw_gen_syncookie_ipv4(data + sizeof(struct ethhdr), tcp, size);
    if (cookie < 0)
        return XDP_DROP;
    count(COUNT_ASKED);
    swap_ends(data, s, tcp);
    tcp->ack_seq = bpf_htonl(bpf_ntohl(tcp->seq) + 1);
    tcp->seq = bpf_htonl((__u32)cookie);
    ((__u8 *)tcp)[12] = REPLY_TCP / 4 << 4;
    ((__u8 *)tcp)[13] = 0x12;       // SYN, ACK
    tcp->window = 0xffff;
    tcp->urg_ptr = 0;
    *(__be32 *)(tcp + 1) = bpf_htonl(2 << 24 | 4 << 16 | (s->is_v6 ? SEGMENT_SIZE_V6 : SEGMENT_SIZE));
    return finish(ctx, s, REPLY_TCP);
}

// The cookie comes back: the client is real, and is told to try again.
static __always_inline int check(struct xdp_md *ctx, struct state *s)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u32 l4 = s->is_v6 ? sizeof(struct ethhdr) + sizeof(struct ipv6hdr) : sizeof(struct ethhdr) + sizeof(struct iphdr);
    struct tcphdr *tcp = data + l4;
    if ((void *)(tcp + 1) > end)
        return XDP_DROP;
    long error = s->is_v6 ? bpf_tcp_raw_check_syncookie_ipv6(data + sizeof(struct ethhdr), tcp)
                          : bpf_tcp_raw_check_syncookie_ipv4(data + sizeof(struct ethhdr), tcp);
    if (error || !tcp->ack) {
        count(COUNT_FORGED);
        return XDP_DROP;
    }
    __u64 none = 0;
    bpf_map_update_elem(&proved, &s->client, &none, BPF_ANY);
    count(COUNT_PROVED);
    swap_ends(data, s, tcp);
    tcp->seq = tcp->ack_seq;
    tcp->ack_seq = 0;
    ((__u8 *)tcp)[12] = sizeof(*tcp) / 4 << 4;
    ((__u8 *)tcp)[13] = 0x04;       // RST
    tcp->window = 0;
    tcp->urg_ptr = 0;
    return finish(ctx, s, sizeof(*tcp));
}
