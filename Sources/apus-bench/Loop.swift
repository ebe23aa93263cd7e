import ArgumentParser
import CDPDK
import Compiler
import Dataplane
import DPDK
import EBPF
import Wire

/// Cycles the polling loop spends on a packet, receive to transmit, over ports made of arrays: no driver, no kernel.
struct Loop: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Cycles of the polling loop a packet, with and without a program, beside none at all.")

    @Option(help: "Interleaved rounds; medians are printed.") var rounds = 31
    @Option(help: "Folder of the compiled programs.") var objects = ".build/bpf"

    func run() throws {
        let compiler = try Compiler()
        var programs: [(name: String, program: LoadedProgram)] = [], codes: [CompiledCode] = []
        for name in ["count", "macswap", "nat"] {
            for how in ["interpreted", "compiled"] {
                let program = try ProgramLoader.load(object: "\(objects)/\(name).o", program: nil, verify: .kernel)
                if how == "compiled" { codes.append(try compiler.compile(program)) }
                programs.append(("\(name), \(how)", program))
            }
        }
        try EAL.start(name: "bench", memory: .normalPages(megabytes: 128), pollingCPUs: [], otherCPUs: [0])
        defer { EAL.stop() }
        let small = try PacketPool(name: "small", capacity: 2047, room: TapQueue.smallRoom, cache: 0)
        let large = try PacketPool(name: "large", capacity: 63, room: PacketPool.largestRoom, cache: 0)
        let memory = PacketMemory(small: small.allocator, large: large.allocator, smallBytes: TapQueue.smallFrameMax)
        var benches = [LoopBench("no program", nil, memory)]
        for (name, program) in programs { benches.append(LoopBench(name, program, memory)) }
        var cycles = benches.map { _ in [Double]() }
        for _ in 0..<rounds {
            for (number, bench) in benches.enumerated() { cycles[number].append(bench.measure()) }
        }
        print("cycles a packet of 64 bytes with an unfinished checksum, \(rounds) interleaved rounds, median (quartiles)")
        for (number, bench) in benches.enumerated() {
            let sorted = cycles[number].sorted()
            let quartiles = [1, 2, 3].map { Int(sorted[sorted.count * $0 / 4]) }
            print("  \(bench.name): \(quartiles[1]) (\(quartiles[0]) to \(quartiles[2]))")
        }
        withExtendedLifetime((programs, codes)) {}
    }
}

/// One loop between two array ports; the packets that left are put back at the front.
@safe final class LoopBench {
    let name: String
    private let queues: UnsafeMutablePointer<MemoryQueue>
    private let counters: UnsafeMutablePointer<UInt64>
    private var lcore: Lcore
    private static let packetCount = 256

    init(_ name: String, _ program: LoadedProgram?, _ memory: PacketMemory) {
        self.name = name
        unsafe queues = .allocate(capacity: 2)
        unsafe counters = .allocate(capacity: 1024)
        unsafe counters.initialize(repeating: 0, count: 1024)
        let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: 2)
        for port in 0..<2 {
            unsafe (queues + port).initialize(to: MemoryQueue(capacity: Self.packetCount, capabilities: .everything))
            let programCounters = unsafe ProgramCounters(at: counters + 512 + 64 * port)
            let stages = program.map { [ProgramStage($0, mode: .lazy, counters: programCounters)] } ?? []
            var slot = unsafe PortSlot(queue: PortQueue(queues + port), index: UInt32(port + 1),
                                       delivery: .init(isFull: false, reseedsVerified: false),
                                       counters: PortCounters(at: counters + 256 + 64 * port), chain: stages)
            slot.destination = 1 - port
            unsafe slots.initializeElement(at: port, to: slot)
        }
        unsafe lcore = Lcore(slots: slots, memory: memory, counters: LcoreCounters(at: counters),
                             checksums: ChecksumCounters(at: counters + 64))
        for _ in 0..<Self.packetCount { unsafe queues[0].arrivals.append(Self.packet(memory)) }
    }

    deinit {
        unsafe queues.deinitialize(count: 2).deallocate()
        unsafe counters.deallocate()
    }

    /// TCP over IPv4 as a sender with checksum offload leaves it.
    private static func packet(_ memory: PacketMemory) -> Packet {
        guard let packet = memory.small.allocate() else { fatalError("the bench's pool is too small") }
        var bytes: [UInt8] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 6, 0x26, 0xc3,
                              10, 0, 0, 1, 10, 0, 0, 2, 0x1f, 0x90, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0x14, 0x29, 0, 0]
        bytes += [UInt8](repeating: 7, count: 64 - bytes.count)
        unsafe packet.setWindow(start: packet.buffer + TapQueue.headroom, count: bytes.count)
        unsafe bytes.withUnsafeBytes { unsafe packet.data.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        packet.state = .known(start: 34, offset: 16)
        return packet
    }

    /// Cycles a packet over a few passes.
    func measure() -> Double {
        let passes = 64
        var spent: UInt64 = 0
        for _ in 0..<passes {
            let begin = apus_cycles()
            for _ in 0..<Self.packetCount / Lcore.burstSize { lcore.poll() }
            spent += apus_cycles() - begin
            unsafe queues[1].departures.moveAll(to: &queues[0].arrivals)
        }
        return Double(spent) / Double(passes * Self.packetCount)
    }
}
