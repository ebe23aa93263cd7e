@testable import EBPF

/// What a program is to be told about, worked out by hand from its C text before there was an analysis. Places are
/// the tags of the source lines (`// @name`).
struct Golden: CustomStringConvertible, Sendable {
    enum Read { case closed, look }

    /// Bytes a store may touch: from the L3 header where that is certain, else from the arrival's first byte.
    enum Range: Equatable { case l3(Int, Int), data(Int, Int) }

    let file: String
    var program: String? = nil
    /// What the program array holds, by slot; nil: nobody knows.
    var next: [UInt32: String]? = nil
    var reads: [String: Read] = [:]
    /// A partial packet is completed before the first of these that a run reaches.
    var completed: Set<String> = []
    var stores: [String: Range] = [:]
    var adjusts: [String: String] = [:]

    var description: String { file + (program.map { ":\($0)" } ?? "") + (next.map { " \($0)" } ?? "") }
    var isReadOnly: Bool { stores.isEmpty && adjusts.values.allSatisfy { $0 == "bpf_xdp_adjust_meta" } }

    static let all: [Golden] = [
        Golden(file: "ports_drop"),
        Golden(file: "neighbours"),
        Golden(file: "verify_drop", reads: ["sum": .look], completed: ["sum"]),
        Golden(file: "verify_words", reads: ["word": .look], completed: ["word"]),
        Golden(file: "nat_port", reads: ["field": .closed], stores: ["port": .l3(22, 64), "check": .l3(36, 78)]),
        Golden(file: "nat_loop", reads: ["field": .closed], stores: ["port": .l3(20, 62), "check": .l3(36, 78)]),
        Golden(file: "udp_zero", reads: ["zero": .closed], stores: ["check": .l3(26, 68), "port": .l3(22, 64)]),
        // The compiler reads the field behind the test, and says that it does so there.
        Golden(file: "either_zero", reads: ["field": .look], completed: ["field"], stores: ["check": .l3(26, 68), "port": .l3(22, 64)]),
        Golden(file: "udp_none_dropped", reads: ["zero": .closed]),
        Golden(file: "tcp_zero", reads: ["zero": .look], completed: ["zero"]),
        Golden(file: "all_ones", reads: ["field": .closed], stores: ["check": .l3(36, 78), "port": .l3(20, 62)]),
        Golden(file: "csum_chain", reads: ["field": .closed], stores: ["address": .l3(24, 40), "ports": .l3(40, 44), "check": .l3(56, 58)]),
        Golden(file: "spill", reads: ["low": .closed, "high": .closed], stores: ["port": .l3(20, 62), "check": .l3(36, 78)]),
        Golden(file: "spill_key", reads: ["field": .look], completed: ["field"]),
        Golden(file: "subprograms", reads: ["field": .closed], stores: ["check": .l3(36, 78), "port": .l3(22, 64)]),
        Golden(file: "icmp_too_big", reads: ["quote": .look], completed: ["trim"],
               stores: ["mac": .l3(-42, -30), "type": .l3(-30, -28), "outer": .l3(-28, -8), "icmp": .l3(-8, 0), "sum": .l3(-6, -4)],
               adjusts: ["trim": "bpf_xdp_adjust_tail", "grow": "bpf_xdp_adjust_head"]),
        // The compiler copies without the array between: it reads where it pastes.
        Golden(file: "quote_copy", reads: ["paste": .look], completed: ["ttl"],
               stores: ["ttl": .l3(8, 9), "paste": .l3(28, 56), "protocol": .l3(9, 10), "icmp": .l3(20, 28)]),
        Golden(file: "respond_zero",
               stores: ["source": .l3(12, 16), "destination": .l3(16, 20), "from": .l3(20, 62), "to": .l3(22, 64), "zero": .l3(26, 68)]),
        Golden(file: "copy_overlap", reads: ["move": .look], completed: ["grow"], stores: ["move": .data(-8, 56)],
               adjusts: ["grow": "bpf_xdp_adjust_head"]),
        Golden(file: "vlan_pop", stores: ["addresses": .data(4, 16)], adjusts: ["pop": "bpf_xdp_adjust_head"]),
        Golden(file: "encapsulate", stores: ["link": .l3(-34, -20), "outer": .l3(-20, 0)], adjusts: ["grow": "bpf_xdp_adjust_head"]),
        Golden(file: "tail_call", program: "entry", next: nil, completed: ["urgent"], stores: ["urgent": .l3(38, 80)]),
        Golden(file: "tail_call", program: "entry", next: [1: "looks"], reads: ["look": .look], completed: ["urgent"],
               stores: ["urgent": .l3(38, 80)]),
        Golden(file: "tail_call", program: "entry", next: [1: "passes"], stores: ["urgent": .l3(38, 80)]),
        Golden(file: "tail_call", program: "entry", next: [0: "looks"], stores: ["urgent": .l3(38, 80)]),
        Golden(file: "tail_call", program: "looks", reads: ["look": .look], completed: ["look"]),
        Golden(file: "tail_call", program: "passes"),
        Golden(file: "map_value", reads: ["field": .look], completed: ["field"]),
        Golden(file: "printk", reads: ["field": .look], completed: ["field"]),
        Golden(file: "from_scratch", stores: ["port": .l3(22, 24), "zero": .l3(26, 28), "check": .l3(26, 28)]),
        Golden(file: "ttl", stores: ["check": .l3(10, 12), "ttl": .l3(8, 9), "mac": .l3(-9, -8)]),
        Golden(file: "no_options"),
        Golden(file: "pattern", reads: ["match": .look], completed: ["match"]),
        Golden(file: "second_look", reads: ["field": .look], completed: ["field"],
               stores: ["tos": .l3(1, 2), "port": .l3(20, 62)]),
        Golden(file: "carry", reads: ["field": .look], completed: ["field"]),
        // Headers copied to the stack and back, by offsets: the field is where the copy has it.
        Golden(file: "frags_nat", reads: ["field": .closed], stores: ["port": .l3(22, 64), "check": .l3(36, 78)]),
        Golden(file: "frags_quote", reads: ["copy": .look], completed: ["copy"], stores: ["port": .l3(22, 64), "paste": .l3(78, 94)]),
        Golden(file: "arms_apart", reads: ["field": .look], completed: ["field"]),
        Golden(file: "offset_nat", reads: ["zero": .closed], stores: ["address": .l3(16, 20), "check": .l3(26, 68)]),
        Golden(file: "short_distance", stores: ["sum": .l3(10, 12), "ttl": .l3(8, 9)]),
        Golden(file: "anywhere", reads: ["there": .look], completed: ["there"]),
        Golden(file: "wrong_length", reads: ["window": .look], completed: ["window"]),
        Golden(file: "own_read", stores: ["check": .l3(26, 68)]),
        Golden(file: "own_bytes", reads: ["field": .look], completed: ["field"], stores: ["check": .l3(26, 68), "port": .l3(22, 64)]),
        Golden(file: "address", reads: ["field": .look], completed: ["field"]),
        Golden(file: "closed_read", reads: ["early": .closed, "late": .look], completed: ["early"], stores: ["check": .l3(36, 78)]),
        Golden(file: "one_way", reads: ["field": .look], completed: ["none", "field"], stores: ["none": .l3(26, 68)]),
        Golden(file: "loop_reads"),
        Golden(file: "loop_sum", reads: ["word": .look], completed: ["word"]),
        Golden(file: "loop_nat", reads: ["field": .closed], stores: ["port": .l3(20, 62), "check": .l3(36, 78)]),
        Golden(file: "loop_until", reads: ["field": .look], completed: ["field"]),
        Golden(file: "loop_twice", reads: ["field": .look], completed: ["field"]),
        Golden(file: "each_element", reads: ["field": .look], completed: ["field"]),
    ]
}
