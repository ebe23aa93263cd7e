// The field goes over the stack, byte by byte, and back.
#include "fixture.h"

SEC("xdp") int spill(struct xdp_md *ctx)
{
    TCP_OR_PASS;
    volatile __u8 bytes[2];
    volatile __u64 wide;
    bytes[0] = ((__u8 *)&tcp->check)[0];                        // @low
    bytes[1] = ((__u8 *)&tcp->check)[1];                        // @high
    wide = ~(bytes[0] | bytes[1] << 8) & 0xffff;
    __u32 sum = (__u32)wide + (__u16)~tcp->source + bpf_htons(7);
    tcp->source = bpf_htons(7);                                 // @port
    tcp->check = ~fold16(sum);                                  // @check
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
