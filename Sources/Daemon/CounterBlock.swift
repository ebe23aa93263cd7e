import Dataplane
import DPDK

/// One lcore's counters, in one piece of memory that only it writes. Lives as long as anyone counts or reads.
@safe final class CounterBlock: @unchecked Sendable {
    // @unchecked: the words are written by one lcore and read by others with relaxed atomics only; the
    // pointer itself never changes.
    private let words: UnsafeMutablePointer<UInt64>
    private let portCount: Int
    /// What the same lcore shows of its packets.
    let capture = CaptureRing()

    static var alignment: Int { 64 }

    init(portCount: Int, programCount: Int) {
        self.portCount = portCount
        let count = LcoreCounters.words + ChecksumCounters.words + portCount * PortCounters.words
            + programCount * ProgramCounters.words
        let memory = UnsafeMutableRawPointer.allocate(byteCount: count * 8, alignment: Self.alignment)
        unsafe words = memory.initializeMemory(as: UInt64.self, repeating: 0, count: count)
    }

    deinit {
        unsafe words.deallocate()
        capture.free()
    }

    var lcore: LcoreCounters { unsafe LcoreCounters(at: words) }
    var checksums: ChecksumCounters { unsafe ChecksumCounters(at: words + LcoreCounters.words) }

    func port(_ number: Int) -> PortCounters {
        unsafe PortCounters(at: words + LcoreCounters.words + ChecksumCounters.words + number * PortCounters.words,
                            capture: CaptureTap(capture, port: number))
    }

    func program(_ number: Int) -> ProgramCounters {
        unsafe ProgramCounters(at: words + LcoreCounters.words + ChecksumCounters.words
            + portCount * PortCounters.words + number * ProgramCounters.words)
    }
}
