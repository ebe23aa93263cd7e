import Testing

@testable import EBPF

/// The project's four programs: the interpreter against the kernel on the same packets, and against hand-written bytes.
@Suite struct ProgramTests {
    static let names = ["count", "macswap", "nat", "nat_wrong"]

    /// Verdict and bytes of every packet, map contents now and then; and each changed byte within the reported ranges.
    @Test(arguments: names) func equalsTheKernel(_ name: String) throws {
        let path = try Objects.program(name)
        let program = try ProgramLoader.load(object: path, program: nil, verify: .kernel)
        let kernel = try KernelTwin(object: path)
        var traffic = Traffic(seed: 42)
        var written = 0
        for number in 1...6000 {
            let packet = traffic.next()
            let ours = Bench().run(program, packet)
            let theirs = kernel.run(packet)
            try #require(ours.outcome == theirs, "packet \(number): \(packet)")
            try #require(isCovered(packet, ours.bytes, ours.effect), "packet \(number): \(ours.effect) \(packet)")
            try #require(ours.effect.headDelta == 0 && ours.effect.tailDelta == 0 && ours.effect.lowestEnd == 0)
            if ours.effect.wrote { written += 1 }
            if number % 2000 == 0 {
                for map in program.maps where !map.definition.isDataSection {
                    try #require(map.contents == kernel.entries(map.name), "\(map.name) after packet \(number)")
                }
            }
        }
        #expect(name == "count" ? written == 0 : written > 1000)
        #expect(program.maps.contains { $0.contents.count > 200 } || name == "macswap")
    }

    /// Every byte that differs is reported.
    private func isCovered(_ before: [UInt8], _ after: [UInt8], _ effect: Effect) -> Bool {
        before.indices.allSatisfy { before[$0] == after[$0] || effect.written.names($0) }
    }

    @Test func loadsWhatTheObjectSays() throws {
        for name in ProgramTests.names {
            let program = try ProgramLoader.load(object: try Objects.program(name), program: nil, verify: .kernel)
            #expect(program.name == "xdp_\(name)")
            #expect(program.section == "xdp.frags")
            #expect(program.isFragsAware)
            #expect(program.canWrite == (name != "count"))
            #expect(program.instructions > 10)
            #expect(program.source(of: 0)?.file.hasSuffix("\(name).bpf.c") == true)
        }
    }

    /// Of a frame in several segments the first is shown, all of it is counted: as the kernel does with its fragments.
    @Test func countsWholeSuperframes() throws {
        let path = try Objects.program("count")
        let program = try ProgramLoader.load(object: path, program: nil, verify: .kernel)
        let kernel = try KernelTwin(object: path)
        for size in [3000, 4000, 8000] {
            let packet = Frame(payload: [UInt8](repeating: 7, count: size)).bytes
            let linear = min(packet.count, 4096 - 256 - 320)    // what BPF_PROG_TEST_RUN keeps in the first segment
            let bench = Bench(isMultiBuffer: packet.count > linear, bytesBehind: packet.count - linear)
            #expect((bench.run(program, Array(packet.prefix(linear)))).effect.verdict == .pass)
            #expect(kernel.run(packet)?.verdict == 2)
        }
        for map in program.maps { #expect(map.contents == kernel.entries(map.name)) }
        #expect(try program.map(named: "protocols")?.lookup([6, 0, 0, 0]) == Asm.words([3, 15000 + 3 * 54]))
    }

    @Test func macSwapWritesTheAddressesOnly() throws {
        let program = try ProgramLoader.load(object: try Objects.program("macswap"), program: nil, verify: .kernel)
        let frame = Frame(vlans: [5]).bytes
        let run = Bench().run(program, frame)
        #expect(run.bytes == Array(frame[6..<12] + frame[0..<6] + frame[12...]))
        #expect(run.effect.written.ranges == [ByteRange(0, 12)])
        #expect(run.effect.verdict == .pass)
        // Too short for Ethernet: passed, untouched.
        #expect(!(Bench().run(program, Array(frame.prefix(13)))).effect.wrote)
    }

    /// VIP to server and back, every checksum right, what was written to the byte.
    @Test(arguments: [false, true]) func natTranslates(_ isUDP: Bool) throws {
        let program = try ProgramLoader.load(object: try Objects.program("nat"), program: nil, verify: .kernel)
        let request = Frame(isUDP: isUDP, payload: [1, 2, 3])
        let expected = Frame(destination: [10, 0, 0, 2], destinationPort: 5201, isUDP: isUDP, payload: [1, 2, 3])
        let run = Bench().run(program, request.bytes)
        #expect(run.bytes == expected.bytes)
        // IPv4's checksum, the destination, its port, and the checksum that covers both.
        #expect(run.effect.written.ranges == [ByteRange(24, 26), ByteRange(30, 34), ByteRange(36, 38), isUDP ? ByteRange(40, 42) : ByteRange(50, 52)])

        let reply = Frame(source: [10, 0, 0, 2], destination: [10, 0, 0, 1], sourcePort: 5202, destinationPort: 40000, isUDP: isUDP)
        let back = Frame(source: [10, 0, 0, 100], destination: [10, 0, 0, 1], sourcePort: 8081, destinationPort: 40000, isUDP: isUDP)
        #expect((Bench().run(program, reply.bytes)).bytes == back.bytes)

        let counters = program.map(named: "counters")
        #expect(try counters?.lookup([0, 0, 0, 0]) == [1, 0, 0, 0, 0, 0, 0, 0])
        #expect(try counters?.lookup([1, 0, 0, 0]) == [1, 0, 0, 0, 0, 0, 0, 0])
        #expect(try program.map(named: "connections")?.lookup([10, 0, 0, 1, 0x9c, 0x40, isUDP ? 17 : 6, 0]) == [1, 0, 0, 0, 0, 0, 0, 0])
    }

    /// A UDP checksum of 0 means there is none and stays; one that comes out as 0 is sent as 0xffff.
    @Test func natKeepsUDPZero() throws {
        let program = try ProgramLoader.load(object: try Objects.program("nat"), program: nil, verify: .kernel)
        let none = Frame(isUDP: true, udpChecksum: false)
        let run = Bench().run(program, none.bytes)
        #expect(Array(run.bytes[40..<42]) == [0, 0])
        #expect(run.bytes == Frame(destination: [10, 0, 0, 2], destinationPort: 5201, isUDP: true, udpChecksum: false).bytes)
        // The payload word that brings the translated packet's sum to all ones is the checksum without it.
        let plain = (Bench().run(program, Frame(isUDP: true, payload: [0, 0]).bytes)).bytes
        let result = (Bench().run(program, Frame(isUDP: true, payload: Array(plain[40..<42])).bytes)).bytes
        #expect(Array(result[40..<42]) == [0xff, 0xff])
        #expect(Frame.isConsistent(result, l3Offset: 14) == (true, true))
    }

    @Test func natWrongLeavesChecksumsWrong() throws {
        let program = try ProgramLoader.load(object: try Objects.program("nat_wrong"), program: nil, verify: .kernel)
        for isUDP in [false, true] {
            let run = Bench().run(program, Frame(isUDP: isUDP, payload: [9]).bytes)
            #expect(Frame.isConsistent(run.bytes, l3Offset: 14) == (false, false))
            #expect(run.effect.written.ranges == [ByteRange(30, 34), ByteRange(36, 38)])
        }
    }
}
