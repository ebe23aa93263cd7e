import CBench
import CDPDK
import EBPF
import Glibc

/// Different packets, each in a buffer of its own below 4 GiB: TCP and UDP over IPv4, some with a VLAN tag, as many flows.
@safe final class EngineTraffic {
    let packets: [[UInt8]]
    private let memory: UnsafeMutableRawPointer
    private static let room = 512, headroom = 256

    /// Every third packet is UDP, the others are TCP.
    init(_ numbers: Range<Int>) {
        packets = numbers.map(EngineTraffic.packet)
        guard let memory = unsafe apus_bench_low_memory(numbers.count * EngineTraffic.room) else { fatalError("no memory below 4 GiB") }
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

    private func place() {
        for (number, packet) in packets.enumerated() {
            let start = unsafe memory + number * EngineTraffic.room + EngineTraffic.headroom
            unsafe packet.withUnsafeBytes { unsafe start.copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: $0.count) }
        }
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

    /// Nanoseconds a run, over all packets, `runs` each, each run on what the one before left of the bytes: in a burst, or
    /// one at a time where a run may find the packet longer or shorter than the one before.
    func time(_ program: LoadedProgram, runs: Int, isCarried: Bool) -> Double {
        place()
        let runner = unsafe program.runner
        let contexts = UnsafeMutablePointer<XDPContext>.allocate(capacity: runs), effects = UnsafeMutablePointer<Effect>.allocate(capacity: runs)
        unsafe effects.initialize(repeating: Effect(), count: runs)
        defer {
            unsafe contexts.deallocate()
            unsafe effects.deallocate()
        }
        var spent: UInt64 = 0
        for (number, packet) in packets.enumerated() {
            let buffer = unsafe memory + number * EngineTraffic.room, start = unsafe buffer + EngineTraffic.headroom
            let context = unsafe XDPContext(data: start, dataEnd: start + packet.count, dataMeta: start, bufferStart: buffer,
                                            bufferEnd: buffer + EngineTraffic.room, l3Offset: packet[12] == 0x81 ? 18 : 14, ingressIndex: 1)
            unsafe contexts.initialize(repeating: context, count: runs)
            let begin = apus_cycles()
            if isCarried {
                for _ in 0..<runs { unsafe runner.run(contexts, effects, count: 1) }
            } else {
                unsafe runner.run(contexts, effects, count: runs)
            }
            spent &+= apus_cycles() &- begin
        }
        return Double(spent) * EngineTraffic.nanosecondsPerCycle / Double(packets.count * runs)
    }

    func time(_ native: NativeProgram, runs: Int) -> Double {
        place()
        var spent: UInt64 = 0
        for (number, packet) in packets.enumerated() {
            let start = UInt32(UInt(bitPattern: unsafe memory) + UInt(number * EngineTraffic.room + EngineTraffic.headroom))
            let places = (0..<runs).flatMap { _ in [start, start + UInt32(packet.count)] }
            let begin = apus_cycles()
            _ = unsafe apus_bench_native(native.function, places, runs)
            spent &+= apus_cycles() &- begin
        }
        return Double(spent) * EngineTraffic.nanosecondsPerCycle / Double(packets.count * runs)
    }
}
