import CDPDK
import Dataplane
import DPDK
import EBPF
import Glibc
import Wire

/// Cycles a packet spends between two ports made of arrays: receive, state, forward, express, send; no driver.
@safe struct Paths {
    private static let bursts = 20_000

    /// Prints a line a kind of packet. Starts EAL on normal pages.
    func run() {
        do {
            try EAL.start(name: "bench-\(getpid())", memory: .normalPages(megabytes: 64), pollingCPUs: [], otherCPUs: [0])
            defer { EAL.stop() }
            let small = try PacketPool(name: "small", capacity: 1023, room: TapQueue.smallRoom, cache: 0)
            let large = try PacketPool(name: "large", capacity: 63, room: PacketPool.largestRoom, cache: 0)
            let memory = PacketMemory(small: small.allocator, large: large.allocator, smallBytes: TapQueue.smallFrameMax)
            print("packet                                cycles a packet (median of \(Self.bursts) bursts of \(Lcore.burstSize))")
            measure("none", .none, .everything, memory)
            measure("TCP/IPv4 unfinished, kept", .known(start: 34, offset: 16), .everything, memory)
            measure("TCP/IPv4 verified, plain", .unnecessary(start: 34, offset: 16), .everything, memory)
            measure("TCP/IPv4 verified, reseeded", .unnecessary(start: 34, offset: 16), .everything, memory, reseeds: true)
            measure("TCP/IPv4 of 1514 bytes, completed", .known(start: 34, offset: 16), .nothing, memory)
        } catch {
            print("\(error)")
            exit(1)
        }
    }

    private func measure(_ name: String, _ state: ChecksumState, _ takes: TransmitCapabilities, _ memory: PacketMemory, reseeds: Bool = false) {
        let words = UnsafeMutablePointer<UInt64>.allocate(capacity: 1024)
        unsafe words.initialize(repeating: 0, count: 1024)
        let queues = UnsafeMutablePointer<MemoryQueue>.allocate(capacity: 2)
        let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: 2)
        for number in 0..<2 {
            unsafe (queues + number).initialize(to: MemoryQueue(capacity: Lcore.burstSize, capabilities: takes))
            var slot = unsafe PortSlot(queue: PortQueue(queues + number), index: 1, delivery: .init(isFull: false, reseedsVerified: reseeds, mtu: 1500),
                                       counters: PortCounters(at: words + 128 * number), chain: [])
            slot.destination = 1 - number
            unsafe slots.initializeElement(at: number, to: slot)
        }
        defer {
            unsafe queues.deinitialize(count: 2).deallocate()
            unsafe words.deallocate()
        }
        var lcore = unsafe Lcore(slots: slots, memory: memory, counters: LcoreCounters(at: words + 512), checksums: ChecksumCounters(at: words + 768))
        for _ in 0..<Lcore.burstSize { unsafe queues[0].arrivals.append(packet(memory)) }
        var times: [UInt64] = []
        for _ in 0..<Self.bursts {
            for index in 0..<Lcore.burstSize { unsafe queues[0].arrivals[index].state = state }
            let begin = apus_cycles()
            lcore.poll()
            times.append(apus_cycles() &- begin)
            // What left arrives again; completing one twice costs the same.
            for index in 0..<Lcore.burstSize { unsafe queues[0].arrivals.append(queues[1].departures.take(index)) }
            unsafe queues[1].departures.truncate(to: 0)
        }
        let median = times.sorted()[Self.bursts / 2] / UInt64(Lcore.burstSize)
        print(name + String(repeating: " ", count: 38 - name.utf8.count) + "\(median)")
    }

    private func packet(_ memory: PacketMemory) -> Packet {
        let frame: [UInt8] = [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 8, 0, 0x45, 0, 0x05, 0xdc, 1, 2, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
                              0x1f, 0x90, 0xc0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0] + [UInt8](repeating: 0x5a, count: 1460)
        guard let packet = memory.small.allocate() else { fatalError("the pool is empty") }
        unsafe packet.setWindow(start: packet.buffer + TapQueue.headroom, count: frame.count)
        unsafe frame.withUnsafeBytes { unsafe packet.data.copyMemory(from: $0.baseAddress!, byteCount: frame.count) }
        return packet
    }
}
