/// The types that programs for XDP take from the kernel's user interface (include/uapi/linux): what CO-RE goes by where the
/// running kernel does not say. They never change but for new members behind the old ones. Nameless bits are such
/// whose names changed.
enum UAPITypes {
    static let btf: BTF = {
        do throws(Malformed) {
            var table = TypeTable()
            try table.declare(text)
            return try BTF(ByteView(table.bytes))
        } catch {
            preconditionFailure("the table of types is wrong: \(error.message)")
        }
    }()

    /// As raw BTF, for libbpf.
    static let bytes: [UInt8] = {
        var table = TypeTable()
        try? table.declare(text)
        return table.bytes
    }()

    static let text = """
        struct xdp_md { u32 data; u32 data_end; u32 data_meta; u32 ingress_ifindex; u32 rx_queue_index; u32 egress_ifindex; };
        enum xdp_action { XDP_ABORTED = 0, XDP_DROP = 1, XDP_PASS = 2, XDP_TX = 3, XDP_REDIRECT = 4 };
        struct ethhdr { u8 h_dest[6]; u8 h_source[6]; u16 h_proto; };
        struct vlan_hdr { u16 h_vlan_TCI; u16 h_vlan_encapsulated_proto; };
        struct arphdr { u16 ar_hrd; u16 ar_pro; u8 ar_hln; u8 ar_pln; u16 ar_op; };
        struct iphdr {
            u8 ihl : 4; u8 version : 4; u8 tos; u16 tot_len; u16 id; u16 frag_off; u8 ttl; u8 protocol; u16 check;
            union { struct { u32 saddr; u32 daddr; }; struct { u32 saddr; u32 daddr; } addrs; };
        };
        struct in_addr { u32 s_addr; };
        struct in6_addr { union { u8 u6_addr8[16]; u16 u6_addr16[8]; u32 u6_addr32[4]; } in6_u; };
        struct ipv6hdr {
            u8 priority : 4; u8 version : 4; u8 flow_lbl[3]; u16 payload_len; u8 nexthdr; u8 hop_limit;
            union { struct { struct in6_addr saddr; struct in6_addr daddr; }; struct { struct in6_addr saddr; struct in6_addr daddr; } addrs; };
        };
        struct ipv6_opt_hdr { u8 nexthdr; u8 hdrlen; };
        struct tcphdr {
            u16 source; u16 dest; u32 seq; u32 ack_seq; u16 : 4; u16 doff : 4; u16 fin : 1; u16 syn : 1; u16 rst : 1; u16 psh : 1;
            u16 ack : 1; u16 urg : 1; u16 ece : 1; u16 cwr : 1; u16 window; u16 check; u16 urg_ptr;
        };
        struct udphdr { u16 source; u16 dest; u16 len; u16 check; };
        struct icmphdr {
            u8 type; u8 code; u16 checksum;
            union { struct { u16 id; u16 sequence; } echo; u32 gateway; struct { u16 __unused; u16 mtu; } frag; u8 reserved[4]; } un;
        };
        struct bpf_fib_lookup {
            u8 family; u8 l4_protocol; u16 sport; u16 dport; union { u16 tot_len; u16 mtu_result; }; u32 ifindex;
            union { u8 tos; u32 flowinfo; u32 rt_metric; };
            union { u32 ipv4_src; u32 ipv6_src[4]; };
            union { u32 ipv4_dst; u32 ipv6_dst[4]; };
            union { struct { u16 h_vlan_proto; u16 h_vlan_TCI; }; u32 tbid; };
            union { struct { u32 mark; }; struct { u8 smac[6]; u8 dmac[6]; }; };
        };
        struct bpf_devmap_val { u32 ifindex; union { s32 fd; u32 id; } bpf_prog; };
        struct bpf_cpumap_val { u32 qsize; union { s32 fd; u32 id; } bpf_prog; };
        struct bpf_spin_lock { u32 val; };
        """
}
