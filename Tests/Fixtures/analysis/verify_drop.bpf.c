// Verifies the TCP checksum of short segments and drops what is wrong.
#include "fixture.h"

SEC("xdp") int verify_drop(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    __u32 length = bpf_ntohs(ip->tot_len) - ip->ihl * 4;
    if (length != 20)
        return XDP_PASS;
    __u32 pseudo[3] = {ip->saddr, ip->daddr, bpf_htonl(IPPROTO_TCP << 16 | 20)};
    __s64 sum = bpf_csum_diff(0, 0, pseudo, sizeof(pseudo), 0);
    sum = bpf_csum_diff(0, 0, (__be32 *)tcp, 20, sum);          // @sum
    return fold16(sum) == 0xffff ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
