import DPDK
@testable import EBPF
import Wire
@testable import Dataplane

/// One program in one mode on the real loop: in by one port, back by it (TX) or out by the other (PASS).
final class ContractRoad {
    struct Outcome: Equatable {
        /// PASS, TX, DROP, REDIRECT or ABORTED, as counted.
        var verdict = 0
        /// In normal form, and how a superframe is to be cut.
        var packets: [[UInt8]] = []
        var cuts: [UInt64] = []
        var map: [[UInt8]] = []
        /// As they left.
        var isTrusted: [Bool] = []
        static func == (a: Outcome, b: Outcome) -> Bool { a.verdict == b.verdict && a.packets == b.packets && a.cuts == b.cuts && a.map == b.map }
    }

    let program: LoadedProgram
    let counters = TestCounters()
    private let words: UnsafeMutablePointer<UInt64>
    private let queues: UnsafeMutablePointer<MemoryQueue>
    private var lcore: Lcore
    private var before = [UInt64](repeating: 0, count: 5)

    init(_ program: LoadedProgram, _ mode: ChecksumMode, takes capabilities: TransmitCapabilities) {
        self.program = program
        unsafe words = .allocate(capacity: ProgramCounters.words)
        unsafe words.initialize(repeating: 0, count: ProgramCounters.words)
        unsafe queues = .allocate(capacity: 2)
        let stage = unsafe ProgramStage(program, mode: mode, counters: ProgramCounters(at: words))
        let slots = UnsafeMutableBufferPointer<PortSlot>.allocate(capacity: 2)
        for number in 0..<2 {
            unsafe (queues + number).initialize(to: MemoryQueue(capacity: 64, capabilities: capabilities))
            var slot = PortSlot(queue: unsafe PortQueue(queues + number), index: 1, delivery: .init(isFull: false, reseedsVerified: false),
                                counters: counters.port(number), chain: number == 0 ? [stage] : [])
            slot.destination = 1 - number
            unsafe slots.initializeElement(at: number, to: slot)
        }
        lcore = unsafe Lcore(slots: slots, memory: PacketBench.shared.memory, counters: counters.lcore, checksums: counters.checksums)
    }

    deinit {
        unsafe queues.deinitialize(count: 2).deallocate()
        unsafe words.deallocate()
    }

    private var verdicts: [UInt64] {
        let counters = unsafe ProgramCounters(at: words)
        return [counters.value(.pass), counters.value(.tx), counters.value(.drop), counters.value(.redirect), counters.value(.aborted)]
    }

    var looked: UInt64 { unsafe ProgramCounters(at: words).value(.looked) }

    func run(_ frame: [UInt8], _ state: ChecksumState) -> Outcome {
        unsafe queues[0].arrivals.append(PacketBench.shared.packet(frame, state))
        lcore.poll()
        var outcome = Outcome()
        for number in 0..<2 {
            for index in 0..<(unsafe queues[number].departures.count) {
                let state = unsafe queues[number].departures[index].state
                let bytes = unsafe queues[number].departures[index].bytes
                outcome.packets.append(ContractRoad.normal(bytes, state))
                outcome.cuts.append(state.isSuperframe ? UInt64(state.segmentation.rawValue) << 32 | UInt64(state.segmentSize) : 0)
                outcome.isTrusted.append(state.isTrusted)
            }
            unsafe queues[number].departures.drop()
        }
        let now = verdicts
        outcome.verdict = now.indices.first { now[$0] != before[$0] } ?? -1
        before = now
        outcome.map = program.maps.first { $0.name == "counts" }.map { $0.entries().map(\.value) } ?? []
        return outcome
    }

    /// Partial checksums completed; a field of all ones written as zero, which in a sum it is.
    static func normal(_ bytes: [UInt8], _ state: ChecksumState) -> [UInt8] {
        var bytes = bytes
        if state.isPartial { bytes = Reference.completed(bytes, start: Int(state.start), offset: Int(state.offset)) }
        for at in checksums(bytes) where Reference.word(bytes, at) == 0xffff { Reference.put(&bytes, at, 0) }
        return bytes
    }

    /// Fields of TCP and UDP behind one or two IP headers, unless they are not there. UDP's zero means something, so
    /// that ones stand for themselves there.
    private static func checksums(_ frame: [UInt8]) -> [Int] {
        var found: [Int] = []
        var at = Reference.l3(frame)
        for _ in 0..<2 {
            guard at + 40 <= frame.count, frame[at] >> 4 == 4 || frame[at] >> 4 == 6 else { return found }
            let isIPv6 = frame[at] >> 4 == 6, proto = frame[at + (isIPv6 ? 6 : 9)]
            let next = at + (isIPv6 ? 40 : Int(frame[at] & 15) * 4)
            if proto == 6, next + 18 <= frame.count { found.append(next + 16) }
            guard proto == 4 || proto == 41 else { return found }
            at = next
        }
        return found
    }
}
