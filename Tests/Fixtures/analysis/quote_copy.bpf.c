// Port unreachable: the IP header and eight bytes of UDP are copied behind a new header, in place.
#include "fixture.h"

SEC("xdp") int quote_copy(struct xdp_md *ctx)
{
    BEGIN;
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    if (data + 70 > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->protocol != IPPROTO_UDP)
        return XDP_PASS;
    __u32 quoted[7];
    ip->ttl = 64;                                               // @ttl
    __builtin_memcpy(quoted, ip, 28);                           // @copy
    __builtin_memcpy(data + 42, quoted, 28);                    // @paste
    ip->protocol = IPPROTO_ICMP;                                // @protocol
    *(__u64 *)(data + 34) = 3;                                  // @icmp
    return XDP_TX;
}

char _license[] SEC("license") = "GPL";
