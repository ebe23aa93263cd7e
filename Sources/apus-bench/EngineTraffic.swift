import CBench
import CDPDK
import EBPF
import Glibc

/// Different packets, in buffers below 4 GiB: TCP and UDP over IPv4, some with a VLAN tag, as many flows.
@safe final class EngineTraffic {
    let packets: [[UInt8]]
    private let memory: UnsafeMutableRawPointer
    private static let buffers = 256
    private static let room = 2432, headroom = 256      // about what an mbuf takes

    /// Every third packet is UDP, the others are TCP.
    init(_ numbers: Range<Int>) {
        packets = numbers.map(EngineTraffic.packet)
        guard let memory = unsafe apus_bench_low_memory(EngineTraffic.buffers * EngineTraffic.room) else { fatalError("no memory below 4 GiB") }
        unsafe self.memory = unsafe memory
    }

    private static func packet(_ number: Int) -> [UInt8] {
        let isUDP = number % 3 == 0
        var bytes: [UInt8] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1] + (number % 8 == 7 ? [0x81, 0, 0, 5] : []) + [8, 0]
        let ip: [UInt8] = [0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, isUDP ? 17 : 6, 0, 0, 10, 0, UInt8(number >> 8 & 0xff), UInt8(number & 0xff), 10, 0, 0, 100]
        bytes += ip + [UInt8(40000 >> 8), UInt8(number & 0xff), 0x1f, UInt8(0x90 + number % 2)]
        bytes += isUDP ? [0, 40, 0x12, 0x34] : [0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0x12, 0x34, 0, 0]
        return bytes + [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 100 - bytes.count)
    }

    /// Puts a packet into a buffer.
    private func place(_ number: Int, in buffer: Int) -> UnsafeMutableRawPointer {
        let start = unsafe memory + buffer * EngineTraffic.room + EngineTraffic.headroom
        unsafe packets[number].withUnsafeBytes { unsafe start.copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: $0.count) }
        return unsafe start
    }

    private static let nanosecondsPerCycle: Double = {
        var before = timespec(), after = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &before)
        let begin = apus_cycles()
        usleep(100_000)
        let cycles = apus_cycles() &- begin
        unsafe clock_gettime(CLOCK_MONOTONIC, &after)
        return (Double(after.tv_sec - before.tv_sec) * 1e9 + Double(after.tv_nsec - before.tv_nsec)) / Double(cycles)
    }()

    /// Packets in a burst: as many as the forwarder runs a program over at once.
    static let burst = 16

    /// Nanoseconds a run. Each packet is a burst of its own, of copies in as many buffers, filled right before: so the branches
    /// are as easy to predict as where the kernel runs a program on one packet again and again, and no run waits for what
    /// the one before wrote. `passes` runs over each copy, each on what the one before left.
    func time(_ program: LoadedProgram, passes: Int) -> Double {
        let runner = unsafe program.runner
        let contexts = UnsafeMutablePointer<XDPContext>.allocate(capacity: EngineTraffic.burst)
        let effects = UnsafeMutablePointer<Effect>.allocate(capacity: EngineTraffic.burst)
        unsafe effects.initialize(repeating: Effect(), count: EngineTraffic.burst)
        defer {
            unsafe contexts.deallocate()
            unsafe effects.deallocate()
        }
        return time(passes: passes) { number in
            for copy in 0..<EngineTraffic.burst { unsafe (contexts + copy).initialize(to: context(number, copy)) }
        } run: {
            unsafe runner.run(contexts, effects, count: EngineTraffic.burst)
        }
    }

    func time(_ native: NativeProgram, passes: Int) -> Double {
        var places: [UInt32] = []
        return time(passes: passes) { number in
            places = (0..<EngineTraffic.burst).flatMap { copy in
                let start = UInt32(UInt(bitPattern: unsafe place(number, in: buffer(number, copy))))
                return [start, start + UInt32(packets[number].count)]
            }
        } run: {
            _ = unsafe apus_bench_native(native.function, places, EngineTraffic.burst)
        }
    }

    private func time(passes: Int, prepare: (Int) -> Void, run: () -> Void) -> Double {
        var spent: UInt64 = 0
        for number in packets.indices {
            prepare(number)
            let begin = apus_cycles()
            for _ in 0..<passes { run() }
            spent &+= apus_cycles() &- begin
        }
        return Double(spent) * EngineTraffic.nanosecondsPerCycle / Double(packets.count * passes * EngineTraffic.burst)
    }

    /// The first run of a program on a packet.
    func first(_ program: LoadedProgram) {
        var context = context(0, 0)
        _ = unsafe program.runner.run(&context)
    }

    private func buffer(_ number: Int, _ copy: Int) -> Int { (number * EngineTraffic.burst + copy) % EngineTraffic.buffers }

    private func context(_ number: Int, _ copy: Int) -> XDPContext {
        let start = unsafe place(number, in: buffer(number, copy)), packet = packets[number]
        return unsafe XDPContext(data: start, dataEnd: start + packet.count, dataMeta: start, bufferStart: start - EngineTraffic.headroom,
                                 bufferEnd: start - EngineTraffic.headroom + EngineTraffic.room, ingressIndex: 1)
    }
}
