#pragma once
// What the programs for the analysis share. A line that the golden answers speak of carries a tag: // @name
#include "parse.h"

struct icmphdr {        // linux/icmp.h pulls in libc
    __u8 type, code;
    __sum16 checksum;
    __be32 rest;
};

#define BEGIN \
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end; \
    (void)data; (void)end

// The IPv4 header of an untagged or tagged frame, with its L4 header; leaves the program where there is none.
#define IPV4_OR_PASS \
    BEGIN; \
    __be16 ethertype; \
    struct iphdr *ip = parse_link(data, end, &ethertype); \
    if (!ip || ethertype != bpf_htons(ETH_P_IP)) \
        return XDP_PASS; \
    void *l4 = parse_ipv4(ip, end); \
    if (!l4) \
        return XDP_PASS

#define TCP_OR_PASS \
    IPV4_OR_PASS; \
    struct tcphdr *tcp = l4; \
    if (ip->protocol != IPPROTO_TCP || (void *)(tcp + 1) > end) \
        return XDP_PASS

#define UDP_OR_PASS \
    IPV4_OR_PASS; \
    struct udphdr *udp = l4; \
    if (ip->protocol != IPPROTO_UDP || (void *)(udp + 1) > end) \
        return XDP_PASS

static __always_inline __u16 fold16(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}
