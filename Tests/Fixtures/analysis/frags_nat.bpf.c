// A NAT for packets in several buffers: copies headers to the stack, and a port and the checksum back.
#include "fixture.h"

SEC("xdp.frags") int program(struct xdp_md *ctx)
{
    struct {
        struct ethhdr eth;
        struct iphdr ip;
    } __attribute__((packed)) h;
    if (bpf_xdp_load_bytes(ctx, 0, &h, sizeof(h)) < 0)
        return XDP_PASS;
    if (h.eth.h_proto != bpf_htons(ETH_P_IP) || h.ip.protocol != IPPROTO_TCP || h.ip.ihl < 5)
        return XDP_PASS;
    __u32 l4 = sizeof(h.eth) + h.ip.ihl * 4;
    struct tcphdr tcp;
    if (bpf_xdp_load_bytes(ctx, l4, &tcp, sizeof(tcp)) < 0)     // @field
        return XDP_PASS;
    if (tcp.dest != bpf_htons(80))
        return XDP_PASS;
    __be16 port = bpf_htons(8080);
    __sum16 check = ~fold16((__u32)(__u16)~tcp.check + (__u16)~tcp.dest + port);
    bpf_xdp_store_bytes(ctx, l4 + 2, &port, sizeof(port));      // @port
    bpf_xdp_store_bytes(ctx, l4 + 16, &check, sizeof(check));   // @check
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
