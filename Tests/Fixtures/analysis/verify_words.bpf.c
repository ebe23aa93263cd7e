// The same by hand: 16-bit words of the header, added up in a loop; UDP without payload.
#include "fixture.h"

SEC("xdp") int verify_words(struct xdp_md *ctx)
{
    UDP_OR_PASS;
    if (udp->len != bpf_htons(8))
        return XDP_PASS;
    __u32 sum = bpf_htons(IPPROTO_UDP) + bpf_htons(8);
    sum += (ip->saddr & 0xffff) + (ip->saddr >> 16) + (ip->daddr & 0xffff) + (ip->daddr >> 16);
    __u16 *word = l4;
#pragma clang loop unroll(disable)
    for (int i = 0; i < 4; i++)
        sum += word[i];                                         // @word
    return fold16(sum) == 0xffff ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
