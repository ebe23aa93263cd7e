@testable import EBPF

/// Worlds made for single programs: what their tools and tests set up before they run them.
extension ForeignWorld {
    static func special(_ program: ForeignProgram) -> [ForeignWorld] {
        switch (program.origin, program.name) {
        case ("xdp-bench", "xdp_basic_prog"), ("xdp-bench", "xdp_read_data_prog"):
            return [ForeignWorld(name: "action TX", constants: ["action": [3], "swap_macs": [1], "read_data": [1]], isSpecial: true),
                    ForeignWorld(name: "queues counted", constants: ["rxq_stats": [1]], isSpecial: true)]
        case ("xdp-bench", let name) where name.hasPrefix("cpumap_") && !["cpumap_redirect", "cpumap_pass", "cpumap_drop"].contains(name):
            return [ForeignWorld(name: "four CPUs", constants: ["nr_cpus": little(4)], isSpecial: true)]
        case ("xdp-dispatcher.o", "xdp_dispatcher"):
            // 31 ("nothing attached") goes on, or does not.
            return [ForeignWorld(name: "one program", constants: ["conf": conf(programs: 1, goesOn: 0)], isSpecial: true),
                    ForeignWorld(name: "two programs", constants: ["conf": conf(programs: 2, goesOn: 1 << 31)], isSpecial: true),
                    ForeignWorld(name: "ten programs", constants: ["conf": conf(programs: 10, goesOn: 1 << 31)], isSpecial: true)]
        case ("xdpdump_xdp.o", "xdpdump"):
            return [ForeignWorld(name: "captures", constants: ["trace_cfg": little(1) + little(96) + little(0)], isSpecial: true)]
        case ("xsk_def_xdp_prog.o", _): return [ForeignWorld(name: "detached", constants: ["refcnt": little(0)], isSpecial: true)]
        case (let object, let name) where object.hasPrefix("xdpfilt_"):
            // Filters ask for one after the other, and the first that knows an address decides.
            let addresses = ForeignWorld(name: "IP addresses", empty: ["filter_ethernet"], isSpecial: true, packets: extended)
            let ports = ForeignWorld(name: "ports", empty: ["filter_ethernet", "filter_ipv4", "filter_ipv6"], isSpecial: true, packets: extended)
            return name.hasSuffix("_all") ? [addresses, ports] : name.hasSuffix("_eth") ? [] : [ports]
        case ("xdp-trafficgen", "xdp_handle_tcp_recv"), ("xdp-trafficgen", "xdp_redirect_send_tcp"): return flows
        case ("test_xdp_do_redirect.c", "xdp_redirect"):
            return [ForeignWorld(name: "as its test has it", constants: ["ifindex_in": little(1), "ifindex_out": little(1)], isSpecial: true,
                                 metadata: [[0x42, 0, 0, 0, 0, 0, 0, 0], [], [0x42, 0, 0, 0], [0x41, 0, 0, 0, 0, 0, 0, 0]])]
        case ("test_xdp_do_redirect.c", "xdp_count_pkts"):
            return [ForeignWorld(name: "marked", isSpecial: true, packets: [Frame(isUDP: true, isIPv6: true, payload: [0x42, 1]).bytes])]
        case ("test_xdp_update_frags.c", _): return [ForeignWorld(name: "marked", isSpecial: true, packets: marked)]
        case ("xdp_features.c", _):
            return [ForeignWorld(name: "its test's addresses", constants: ["tester_addr": client6, "dut_addr": service6], isSpecial: true, packets: echoes)]
        case ("xdp_hw_metadata.c", _):
            return [false, true].map { isIPv6 in
                // The time lies in the second word of the metadata.
                ForeignWorld(name: isIPv6 ? "IPv6 for its socket" : "IPv4 for its socket", isSpecial: true,
                             packets: [Frame(vlans: isIPv6 ? [] : [5], destinationPort: 9091, isUDP: true, isIPv6: isIPv6, payload: [1, 2, 3]).bytes,
                                       Frame(destinationPort: 9091, isUDP: true, isIPv6: isIPv6, payload: [1, 2, 3]).bytes], times: 8..<16)
            }
        case ("test_check_mtu.c", _):
            let large = Frame(isUDP: true, payload: [UInt8](repeating: 9, count: 2000)).bytes
            let loopback = little(UInt32(HostHooks.loopbackMTU))
            return [ForeignWorld(name: "the loopback device's", constants: ["GLOBAL_USER_MTU": loopback, "GLOBAL_USER_IFINDEX": little(1)], isSpecial: true),
                    ForeignWorld(name: "no such device", constants: ["GLOBAL_USER_IFINDEX": little(0x7fff_ffff)], isSpecial: true),
                    ForeignWorld(name: "a number below 0", constants: ["GLOBAL_USER_MTU": little(0xffff_fff0)], isSpecial: true),
                    ForeignWorld(name: "too large", isSpecial: true, packets: [large], hasOtherDevice: true)]
        case ("test_migrate_reuseport.c", _):
            return [false, true].map { isIPv6 in
                ForeignWorld(name: isIPv6 ? "IPv6" : "IPv4", isSpecial: true, packets: [Frame(destinationPort: 0, isIPv6: isIPv6).bytes])
            }
        case ("test_parse_tcp_hdr_opt.c", _):
            let options: [[UInt8]] = [[0xfd, 6, 1, 2, 3, 4, 1, 0], [1, 1, 0xfd, 6, 9, 9, 9, 9], [2, 4, 5, 0xb4, 1, 1, 1, 1], [0xfd, 5, 1, 1, 1, 1, 1, 1], [3, 60, 0, 0, 0, 0, 0, 0]]
            return [ForeignWorld(name: "a server's number", isSpecial: true, packets: options.map { options in
                var bytes = Frame(isIPv6: true, payload: options).bytes
                bytes[66] = 0x70
                return bytes
            })]
        default: return []
        }
    }

    /// struct xdp_dispatcher_conf of libxdp 1.2 and later: magic, version, number of programs, frags, then ten masks each.
    private static func conf(programs: UInt8, goesOn: UInt32) -> [UInt8] {
        [236, 2, programs, 0] + (0..<10).flatMap { _ in little(goesOn) }
    }

    /// xdp-trafficgen's TCP flow in the state that it takes over, and one that it has not seen yet.
    private static var flows: [ForeignWorld] {
        let syn = tcp(0x02), answer = tcp(0x10), end = tcp(0x11)
        // struct tcp_flowkey: the answer's addresses and ports the other way round; struct trafficgen_state: it, and a port.
        let key = service6 + client6 + Array(answer[54..<58])
        let state: (String, [UInt8], [UInt8]) = ("state_map", little(0), key + [0x90, 0x1f])
        func flow(_ phase: UInt32, window: [UInt8], repeated: UInt32) -> [UInt8] {
            little(0) + Array(answer[6..<12] + answer[0..<6]) + [UInt8](repeating: 0, count: 16) + little(phase) + little(1000) + little(1000)
                + little(1) + little(repeated) + little(0) + little(0) + window
        }
        return [
            ForeignWorld(name: "new flow", isSpecial: true, packets: extended + [syn, answer], contents: [state]),
            ForeignWorld(name: "flow that ends", isSpecial: true, packets: [syn, answer, end], contents: [state]),
            ForeignWorld(name: "flow running", isSpecial: true, packets: [answer],
                         contents: [state, ("flow_state_map", key, flow(2, window: [0xff, 0xff, 4], repeated: 0))]),
            ForeignWorld(name: "flow repeats", isSpecial: true, packets: [answer],
                         contents: [state, ("flow_state_map", key, flow(2, window: [0xff, 0x0f, 0], repeated: 1))]),
            ForeignWorld(name: "flow done", isSpecial: true, packets: [answer],
                         contents: [state, ("flow_state_map", key, flow(3, window: [0, 0, 0], repeated: 0))]),
        ]
    }

    /// IPv6 with extension headers: each kind alone, and some in a row.
    private static var extended: [[UInt8]] {
        let kinds: [[UInt8]] = [[0], [43], [44], [51], [60], [135], [0, 60, 43, 44], [60, 60, 60, 60, 60, 60, 60]]
        return kinds.enumerated().map { number, kinds in
            var bytes = Frame(isUDP: number % 2 == 0, isIPv6: true, payload: [UInt8](repeating: 4, count: 30)).bytes
            let last = bytes[20]
            bytes[20] = kinds[0]
            // Of 8 bytes each: the next one's kind, and no more of them.
            for (at, next) in (kinds.dropFirst() + [last]).enumerated() { bytes.insert(contentsOf: [next, 0, 0, 0, 0, 0, 0, 0], at: 54 + 8 * at) }
            return bytes
        }
    }

    private static func tcp(_ flags: UInt8) -> [UInt8] {
        var bytes = Frame(isIPv6: true, payload: [UInt8](repeating: 3, count: 20)).bytes
        bytes[67] = flags
        return bytes
    }

    /// The first word says where 16 bytes are that begin and end with a mark: there, not there, and beyond the packet.
    private static var marked: [[UInt8]] {
        [(20, UInt8(0xaa)), (60, 0xaa), (20, 0xab), (500, 0xaa)].map { place, mark in
            var bytes = little(UInt32(place)) + [UInt8](repeating: 1, count: 96)
            for at in [place, place + 15] where at < bytes.count { bytes[at] = mark }
            return bytes
        }
    }

    /// Requests and answers between the tester and the device under test, and one for another command.
    private static var echoes: [[UInt8]] {
        [false, true].flatMap { isIPv6 in
            [Frame(source: client, destination: service, destinationPort: 12346, isUDP: true, isIPv6: isIPv6, payload: [0, 2, 0, 0]).bytes,
             Frame(source: service, destination: client, sourcePort: 12346, isUDP: true, isIPv6: isIPv6, payload: [0, 2, 0, 0]).bytes,
             Frame(source: client, destination: service, destinationPort: 12346, isUDP: true, isIPv6: isIPv6, payload: [0, 1, 0, 0]).bytes,
             Frame(source: client, destination: service, destinationPort: 12346, isIPv6: isIPv6, payload: [0, 2, 0, 0]).bytes]
        }
    }
}
