#pragma once
// Headers as the wire has them, found with the bounds checks the kernel's verifier asks for.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_TAGS_MAX 2
#define IP_FRAGMENT 0x3fff      // more fragments, or an offset: the L4 header is not all here, or not here at all

struct vlan_header {
    __be16 tci;
    __be16 ethertype;
};

// The L3 header and its EtherType in network order; NULL if the frame ends before it.
static __always_inline void *parse_link(void *data, void *end, __be16 *ethertype)
{
    struct ethhdr *eth = data;
    if ((void *)(eth + 1) > end)
        return NULL;
    __be16 type = eth->h_proto;
    void *next = eth + 1;
#pragma unroll
    for (int i = 0; i < VLAN_TAGS_MAX; i++) {
        if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
            break;
        struct vlan_header *tag = next;
        if ((void *)(tag + 1) > end)
            return NULL;
        type = tag->ethertype;
        next = tag + 1;
    }
    *ethertype = type;
    return next;
}

// The L4 header of an unfragmented IPv4 packet, NULL if there is none in reach.
static __always_inline void *parse_ipv4(struct iphdr *ip, void *end)
{
    if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
        return NULL;
    if (ip->frag_off & bpf_htons(IP_FRAGMENT))
        return NULL;
    return (void *)ip + ip->ihl * 4;
}
