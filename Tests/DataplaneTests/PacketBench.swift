import CDPDK
import DPDK
import Glibc
import Testing
import Wire
@testable import Dataplane

/// One EAL and one set of pools for the whole test process, on normal pages.
final class PacketBench: @unchecked Sendable {
    // @unchecked: tests that use it are serialised (`.serialized`, one suite tree), and pools are thread-safe.
    static let shared = PacketBench()

    let small: PacketPool
    let large: PacketPool

    private init() {
        do {
            try EAL.start(name: "test-\(getpid())", memory: .normalPages(megabytes: 128), pollingCPUs: [], otherCPUs: [0])
            small = try PacketPool(name: "small", capacity: 4095, room: TapQueue.smallRoom, cache: 0)
            atexit { EAL.stop() }
            large = try PacketPool(name: "large", capacity: 511, room: PacketPool.largestRoom, cache: 0)
        } catch {
            fatalError("\(error)")
        }
    }

    var memory: PacketMemory { PacketMemory(small: small.allocator, large: large.allocator, smallBytes: TapQueue.smallFrameMax) }

    /// A packet with these bytes; with `split` the bytes from there on lie in a second segment.
    func packet(_ bytes: [UInt8], _ state: ChecksumState, split: Int? = nil) -> Packet {
        let first = split.map { Array(bytes.prefix($0)) } ?? bytes
        let packet = bytes.count > TapQueue.smallFrameMax ? large.allocator.allocate()! : small.allocator.allocate()!
        unsafe packet.setWindow(start: packet.buffer + TapQueue.headroom, count: first.count)
        unsafe first.withUnsafeBytes { unsafe packet.data.copyMemory(from: $0.baseAddress!, byteCount: first.count) }
        if let split {
            let rest = self.packet(Array(bytes.dropFirst(split)), .none)
            let isChained = packet.chain(rest)
            #expect(isChained)
        }
        packet.state = state
        return packet
    }

    /// The same with a segment for each stretch between two of `splits`, which ascend.
    func packet(_ bytes: [UInt8], _ state: ChecksumState, splits: [Int]) -> Packet {
        let first = splits.first ?? bytes.count
        let packet = packet(Array(bytes.prefix(first)), state)
        for (index, from) in splits.enumerated() {
            let to = index + 1 < splits.count ? splits[index + 1] : bytes.count
            let isChained = packet.chain(self.packet(Array(bytes[from..<to]), .none))
            #expect(isChained)
        }
        return packet
    }

    var missing: Int { small.missing + large.missing }
    static var cyclesPerSecond: UInt64 { apus_cycles_per_second() }
}

extension Packet {
    var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
            unsafe copyBytes(from: 0, count: length, to: UnsafeMutableRawPointer(buffer.baseAddress!))
            count = length
        }
    }
}

/// Counters of one lcore for a test.
final class TestCounters {
    private let words: UnsafeMutablePointer<UInt64>

    init() {
        unsafe words = .allocate(capacity: 1024)
        unsafe words.initialize(repeating: 0, count: 1024)
    }

    deinit { unsafe words.deallocate() }

    /// Everything but what depends on the clock.
    var snapshot: [UInt64] { (0..<1024).filter { !(64..<128).contains($0) }.map { unsafe words[$0] } }

    var checksums: ChecksumCounters { unsafe ChecksumCounters(at: words) }
    var lcore: LcoreCounters { unsafe LcoreCounters(at: words + 64) }
    func port(_ number: Int) -> PortCounters { unsafe PortCounters(at: words + 128 + 64 * number) }

    func full(_ cause: ChecksumCounters.Cause) -> UInt64 { checksums.full(cause) }
    var fullTotal: UInt64 { ChecksumCounters.Cause.allCases.reduce(0) { $0 + full($1) } }
}
