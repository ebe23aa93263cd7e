import CBPF
import Foundation
import Testing

@testable import EBPF

/// The project's larger programs, as one and cut into steps: equal to the kernel in verdict, bytes and maps over 10 000
/// packets each, and right by what their packets say.
@Suite(.serialized, .timeLimit(.minutes(30))) struct OwnProgramTests {
    static let packets = Int(ProcessInfo.processInfo.environment["APUS_FOREIGN_PACKETS"] ?? "") ?? 10_000

    struct Own: CustomStringConvertible {
        let object: String
        /// Of a program in steps: the first.
        let program: String
        var description: String { object }
    }

    static let all = [
        Own(object: "balancer", program: "xdp_balancer"), Own(object: "balancer_split", program: "balancer_1"),
        Own(object: "masquerade", program: "xdp_masquerade"), Own(object: "masquerade_split", program: "masquerade_1"),
        Own(object: "synproxy", program: "xdp_synproxy"), Own(object: "synproxy_split", program: "synproxy_read_step"),
        Own(object: "router", program: "xdp_router"), Own(object: "router_split", program: "router_1"),
        Own(object: "tunnel", program: "xdp_tunnel"), Own(object: "tunnel_split", program: "tunnel_1"),
        Own(object: "filter", program: "xdp_filter"), Own(object: "filter_split", program: "filter_1"),
    ]

    private static func little(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    private static func wide(_ address: [UInt8]) -> [UInt8] { address + [UInt8](repeating: 0, count: 16 - address.count) }
    private static func six(_ address: [UInt8]) -> [UInt8] { [0xfd, 0] + [UInt8](repeating: 0, count: 10) + address }
    static let vip: [UInt8] = [10, 0, 0, 100]

    /// What an operator would have put into the maps.
    private static func fill(_ run: TwinRun, _ object: String) throws {
        switch object.prefix(while: { $0 != "_" }) {
        case "balancer":
            var number: UInt32 = 0
            for (address, isV6) in [(wide(vip), UInt8(0)), (six(vip), UInt8(1))] {
                for (port, transport, flags) in [(UInt16(8080), UInt8(6), UInt32(0)), (8080, 17, 1), (8081, 17, 0), (0, 6, 0)] {
                    try run.set("services", address + Frame.big(port) + [transport, isV6], little(number) + little(flags))
                    for place in 0..<UInt32(1021) { try run.set("ring", little(number * 1021 + place), little((place + number) % 7)) }
                    number += 1
                }
            }
            // The seventh is not there.
            for server in 0..<UInt32(6) {
                let kind = server % 3 + 1
                try run.set("servers", little(server), (kind == 3 ? six([172, 16, 1, UInt8(server)]) : wide([172, 16, 1, UInt8(server)])) + little(kind))
            }
        case "synproxy":
            for port in [8080, 80] as [UInt16] { try run.set("guarded", Frame.big(port), [1]) }
            try run.set("proved", wide([10, 0, 0, 5]), [0])
            try run.set("proved", six([10, 0, 0, 6]), [0])
        case "router":
            let neighbour = little(0) + [2, 0, 0, 0, 1, 1] + [2, 0, 0, 0, 1, 2]
            try run.set("policies_v4", little(8) + [10, 0, 0, 0], little(2) + neighbour)
            try run.set("policies_v4", little(30) + [10, 0, 0, 4], little(1))
            try run.set("policies_v4", little(32) + vip, little(2) + little(9) + [2, 0, 0, 0, 2, 1] + [2, 0, 0, 0, 2, 2])      // no such port
            try run.set("policies_v4", little(32) + [10, 0, 0, 2], little(0))
            try run.set("policies_v6", little(16) + six([0, 0, 0, 0]), little(2) + neighbour)
            try run.set("policies_v6", little(128) + six([10, 0, 0, 3]), little(1))
        case "tunnel":
            try run.set("networks", [0, 0, 9, 0], little(0xb8))
            try run.set("networks", [0, 0, 0, 9], little(0x20))
            try run.set("networks", [0, 0, 0, 0], little(0))
            // Who answers from behind: frames of the traffic go to this address.
            try run.set("neighbours", Array(Frame.macs[0..<6]) + [0, 0], [172, 16, 0, 1] + [0, 0, 9, 0] + little(0) + [2, 0, 0, 0, 0, 9])
        case "filter":
            try run.set("list_v4", little(24) + [10, 0, 0, 0], little(0))
            try run.set("list_v4", little(31) + [10, 0, 0, 6], little(2))
            try run.set("list_v4", little(32) + [10, 0, 0, 8], little(1))
            try run.set("list_v4", little(24) + [198, 51, 100, 0], little(4))
            try run.set("list_v6", little(16) + six([0, 0, 0, 0]), little(0))
            try run.set("list_v6", little(128) + six([10, 0, 0, 2]), little(2))
            for (transport, port, action) in [(UInt8(6), UInt16(22), UInt32(2)), (17, 8081, 4), (17, 80, 2)] {
                try run.set("rules", [transport, 0] + Frame.big(port), little(action))
            }
        default: break
        }
    }

    /// Packets of the traffic, and answers to what came out of the program before: the other way round, as the other end
    /// would send them.
    private struct Conversation {
        var traffic = WideTraffic(seed: 77)
        var random = SplitMix(5)
        private var waiting: [[UInt8]] = []

        mutating func next() -> [UInt8] {
            if !waiting.isEmpty, Bool.random(using: &random) { return waiting.removeFirst() }
            return traffic.next()
        }

        mutating func heard(_ packet: [UInt8]) {
            guard waiting.count < 20, packet.count >= 38, packet[12] == 8, packet[13] == 0, packet[14] == 0x45 else { return }
            var answer = packet
            answer.replaceSubrange(0..<12, with: packet[6..<12] + packet[0..<6])
            answer.replaceSubrange(26..<34, with: packet[30..<34] + packet[26..<30])
            if packet[23] == 6 || packet[23] == 17 { answer.replaceSubrange(34..<38, with: packet[36..<38] + packet[34..<36]) }
            if packet[23] == 1 && packet[34] == 8 { answer[34] = 0 }
            if packet[23] == 6 && packet.count > 47 { answer[47] = [0x12, 0x10, 0x11, 0x14].randomElement(using: &random)! }
            waiting.append(answer)
        }
    }

    @Test(arguments: all) func equalsTheKernel(_ own: Own) throws {
        TwinRun.pin(0)
        defer { TwinRun.unpin() }
        let run = try TwinRun(object: try Objects.program(own.object), program: own.program)
        try OwnProgramTests.fill(run, own.object)
        var conversation = Conversation()
        // Cookies are made with a secret, ours and the kernel's.
        let isSecret = own.object.hasPrefix("synproxy")
        for number in 0..<OwnProgramTests.packets {
            let packet = conversation.next()
            var ours: [UInt8] = []
            let difference = run.run(packet) { outcome in
                if ours.isEmpty { ours = outcome.bytes }
                return isSecret && outcome.verdict == 3 ? OwnProgramTests.withoutCookie(outcome) : outcome
            }
            try #require(difference == nil, "\(own.object), packet \(number): \(difference ?? "")")
            conversation.heard(ours)
        }
        // Times differ; of a router the host's table was asked, which knows no route for the loopback device in either.
        let difference = run.differingMap(except: ["activity", "scratch"], withLRU: true)
        #expect(difference == nil, "\(difference ?? "")")
        let coverage = run.coverage
        print("\(own.object): verdicts \(run.verdicts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", ")); \(coverage.ran) of \(coverage.of) instructions of the first program ran")
        #expect(run.verdicts.count >= 2)
        if !own.object.hasSuffix("_split") { #expect(coverage.ran * 10 >= coverage.of * 6) }
    }

    /// Sequence number and checksum of a SYN's answer.
    private static func withoutCookie(_ outcome: Outcome) -> Outcome {
        var outcome = outcome
        let tcp = outcome.bytes[12] == 8 ? 34 : 54
        for at in Array((tcp + 4)..<(tcp + 8)) + [tcp + 16, tcp + 17] where at < outcome.bytes.count { outcome.bytes[at] = 0 }
        return outcome
    }

    // MARK: By their packets

    /// A SYN is answered by SYN and ACK with a cookie; only who brings it back is let through. Ours, and the kernel's its own.
    @Test(arguments: ["synproxy", "synproxy_split"]) func cookiesComeBack(_ object: String) throws {
        let run = try TwinRun(object: try Objects.program(object), program: object == "synproxy" ? "xdp_synproxy" : "synproxy_read_step")
        try OwnProgramTests.fill(run, object)
        for kernel in [false, true] {
            func send(_ packet: [UInt8]) -> Outcome {
                guard !kernel else { return run.kernel.run(packet) ?? Outcome(verdict: 99, bytes: []) }
                return Bench().run(run.program, packet).outcome
            }
            var syn = Frame(destination: OwnProgramTests.vip).bytes
            syn[47] = 0x02
            let answer = send(syn)
            #expect(answer.verdict == 3 && answer.bytes.count == 14 + 20 + 24)
            #expect(answer.bytes[47] == 0x12 && Array(answer.bytes[42..<46]) == [0, 0, 0, 2])
            #expect(Frame.isConsistent(answer.bytes, l3Offset: 14) == (true, true))
            var ack = Frame(destination: OwnProgramTests.vip).bytes
            ack[47] = 0x10
            let cookie = Array(answer.bytes[38..<42])
            let sequence = UInt32(cookie[0]) << 24 | UInt32(cookie[1]) << 16 | UInt32(cookie[2]) << 8 | UInt32(cookie[3])
            ack.replaceSubrange(38..<42, with: [0, 0, 0, 2])
            func put(_ number: UInt32) { ack.replaceSubrange(42..<46, with: [UInt8(number >> 24), UInt8(number >> 16 & 255), UInt8(number >> 8 & 255), UInt8(number & 255)]) }
            put(sequence &+ 77)
            #expect(send(ack).verdict == 1)
            put(sequence &+ 1)
            let reset = send(ack)
            #expect(reset.verdict == 3 && reset.bytes[47] == 0x04 && Array(reset.bytes[38..<42]) == Array(ack[42..<46]))
            #expect(Frame.isConsistent(reset.bytes, l3Offset: 14) == (true, true))
            // From now on it passes.
            #expect(send(syn) == Outcome(verdict: 2, bytes: syn))
        }
    }

    /// To the server inside of IPIP or GUE, the same server for the same flow, and the inner packet as it came.
    @Test(arguments: ["balancer", "balancer_split"]) func balancerKeepsFlows(_ object: String) throws {
        let run = try TwinRun(object: try Objects.program(object), program: object == "balancer" ? "xdp_balancer" : "balancer_1")
        try OwnProgramTests.fill(run, object)
        var servers: [UInt16: UInt8] = [:], kinds: Set<UInt8> = []
        for round in 0..<2 {
            for port in UInt16(40000)..<40200 {
                let frame = Frame(destination: OwnProgramTests.vip, sourcePort: port, destinationPort: 8080, payload: [1, 2, 3]).bytes
                let out = Bench().run(run.program, frame).outcome
                if out.verdict == 1 { continue }        // the ring names the server that is not there
                #expect(out.verdict == 3)
                guard out.bytes[12] == 8 else {
                    #expect(Array(out.bytes[54...]) == Array(frame[14...]) && out.bytes[20] == 4)
                    kinds.insert(41)
                    continue
                }
                let isGUE = out.bytes[23] == 17
                #expect(Array(out.bytes[(isGUE ? 42 : 34)...]) == Array(frame[14...]))
                #expect(Frame.sum(Array(out.bytes[14..<34])) == 0xffff)
                #expect(Int(out.bytes[16]) << 8 | Int(out.bytes[17]) == out.bytes.count - 14)
                kinds.insert(out.bytes[23])
                if round == 0 { servers[port] = out.bytes[33] } else { #expect(servers[port] == out.bytes[33]) }
            }
        }
        #expect(kinds == [4, 17, 41] && Set(servers.values).count == 4)
    }

    /// Out with the outside address and a port, back in, both with right checksums; and what was never sent stays out.
    @Test(arguments: ["masquerade", "masquerade_split"]) func masqueradeTranslatesBothWays(_ object: String) throws {
        let run = try TwinRun(object: try Objects.program(object), program: object == "masquerade" ? "xdp_masquerade" : "masquerade_1")
        for isUDP in [false, true] {
            var frame = Frame(source: [10, 0, 0, 7], destination: [198, 51, 100, 1], isUDP: isUDP, payload: [9, 9]).bytes
            if !isUDP {
                #expect(Bench().run(run.program, frame).effect.verdict == .drop)     // no connection, no SYN
                frame[47] = 0x02
                frame.replaceSubrange(50..<52, with: Frame.big(UInt16((Int(frame[50]) << 8 | Int(frame[51])) + 0x16)))     // flags 0x18 to 0x02
            }
            let out = Bench().run(run.program, frame).outcome
            #expect(out.verdict == 2 && Array(out.bytes[26..<30]) == [192, 0, 2, 1])
            #expect(Frame.isConsistent(out.bytes, l3Offset: 14) == (true, true))
            var back = Frame(source: [198, 51, 100, 1], destination: [192, 0, 2, 1], sourcePort: 8080, isUDP: isUDP)
            back.destinationPort = UInt16(out.bytes[34]) << 8 | UInt16(out.bytes[35])
            #expect(back.destinationPort >= 20000 && back.destinationPort < 60000)
            let inside = Bench().run(run.program, back.bytes).outcome
            #expect(Array(inside.bytes[30..<34]) == [10, 0, 0, 7] && Array(inside.bytes[36..<38]) == Array(frame[34..<36]))
            #expect(Frame.isConsistent(inside.bytes, l3Offset: 14) == (true, true))
            back.destinationPort ^= 1
            #expect(Bench().run(run.program, back.bytes).bytes == back.bytes)
        }
    }

    /// What the host's routing table says is done. The table here is the test's own.
    @Test(arguments: ["router", "router_split"]) func routerAsksTheHost(_ object: String) throws { try HostHooks.alone { try askTheHost(object) } }

    private func askTheHost(_ object: String) throws {
        let run = try TwinRun(object: try Objects.program(object), program: object == "router" ? "xdp_router" : "router_1")
        try OwnProgramTests.fill(run, object)
        defer { apus_set_route_hook(nil) }
        unsafe apus_set_route_hook { params, size, flags in
            // struct bpf_fib_lookup: family 0, ifindex 8, ipv4_dst 32, smac 52, dmac 58.
            let bytes = unsafe params.assumingMemoryBound(to: UInt8.self)
            guard size == 64, flags == 0, unsafe bytes[0] == 2, unsafe bytes[32] == 198 else { return 4 }
            if unsafe bytes[35] == 9 { return 1 }
            for i in 0..<6 {
                unsafe bytes[52 + i] = UInt8(0x10 + i)
                unsafe bytes[58 + i] = UInt8(0x20 + i)
            }
            unsafe bytes[8] = 0
            return 0
        }
        let frame = Frame(destination: [198, 51, 100, 1], isUDP: true).bytes
        let out = Bench().run(run.program, frame)
        #expect(out.effect.verdict == .redirect && out.effect.redirect.index == 0 && out.effect.redirect.map != 0)
        #expect(Array(out.bytes[0..<12]) == [0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15])
        #expect(out.bytes[22] == 63 && Frame.isConsistent(out.bytes, l3Offset: 14) == (true, true))
        #expect(Bench().run(run.program, Frame(destination: [198, 51, 100, 9]).bytes).effect.verdict == .drop)
        #expect(Bench().run(run.program, Frame(destination: [203, 0, 113, 9]).bytes).effect.verdict == .pass)
    }

    /// Out of a tunnel and into it: a frame goes in, what comes out goes back to where it came from.
    @Test(arguments: ["tunnel", "tunnel_split"]) func tunnelLearnsAndAnswers(_ object: String) throws {
        let run = try TwinRun(object: try Objects.program(object), program: object == "tunnel" ? "xdp_tunnel" : "tunnel_1")
        try OwnProgramTests.fill(run, object)
        var inner = Frame(payload: [7, 7, 7]).bytes
        inner.replaceSubrange(6..<12, with: [2, 0xaa, 0, 0, 0, 1])
        let outer = Frame(source: [172, 16, 0, 5], destination: OwnProgramTests.vip, sourcePort: 5000, destinationPort: 4789, isUDP: true,
                          payload: [8, 0, 0, 0, 0, 0, 9, 0] + inner).bytes
        #expect(Bench().run(run.program, outer).outcome == Outcome(verdict: 2, bytes: inner))
        var answer = Frame(source: [10, 0, 0, 3], destination: [10, 0, 0, 1]).bytes
        answer.replaceSubrange(0..<6, with: [2, 0xaa, 0, 0, 0, 1])
        let sent = Bench().run(run.program, answer).outcome
        #expect(sent.verdict == 3 && Array(sent.bytes[50...]) == answer && Array(sent.bytes[30..<34]) == [172, 16, 0, 5])
        #expect(Array(sent.bytes[42..<50]) == [8, 0, 0, 0, 0, 0, 9, 0] && Array(sent.bytes[36..<38]) == Frame.big(4789))
        #expect(Frame.sum(Array(sent.bytes[14..<34])) == 0xffff && sent.bytes[15] == 0xb8)
        // A network that does not end here.
        var strange = outer
        strange[48] = 11
        #expect(Bench().run(run.program, strange).effect.verdict == .drop)
    }
}
