import Dataplane
import DPDK
import Glibc
import Synchronization

/// One lcore's counters, in one piece of memory that only it writes. Lives as long as anyone counts or reads.
@safe final class CounterBlock: @unchecked Sendable {
    // @unchecked: the counters are written by one lcore and read by others with relaxed atomics only, their copy is
    // handed over by the snapshot, and `reading` lets one reader at a time ask for it; the pointers never change.
    /// Where the counters of each kind are, in the lcore's own words or in a copy of them.
    @safe struct View {
        private let words: UnsafeMutablePointer<UInt64>
        private let portCount: Int
        /// Where the lcore shows its packets; nil in a copy.
        private let capture: CaptureRing?

        fileprivate init(_ words: UnsafeMutablePointer<UInt64>, portCount: Int, capture: CaptureRing?) {
            unsafe self.words = words
            self.portCount = portCount
            self.capture = capture
        }

        fileprivate static func count(ports: Int, programs: Int) -> Int {
            LcoreCounters.words + ChecksumCounters.words + ports * PortCounters.words + programs * ProgramCounters.words
        }

        var lcore: LcoreCounters { unsafe LcoreCounters(at: words) }
        var checksums: ChecksumCounters { unsafe ChecksumCounters(at: words + LcoreCounters.words) }

        func port(_ number: Int) -> PortCounters {
            unsafe PortCounters(at: words + View.count(ports: number, programs: 0), capture: capture.map { CaptureTap($0, port: number) })
        }

        func program(_ number: Int) -> ProgramCounters {
            unsafe ProgramCounters(at: words + View.count(ports: portCount, programs: number))
        }
    }

    private let words: UnsafeMutablePointer<UInt64>
    /// The lcore's own, which it counts in.
    let own: View
    private let copied: View
    /// How the lcore is asked for a copy.
    let snapshot: CounterSnapshot
    private let reading = Mutex(())
    /// What the same lcore shows of its packets.
    let capture = CaptureRing()

    static var alignment: Int { 64 }
    /// How long a reader waits for the lcore, which answers after its round unless something else has its CPU.
    static var patienceMicroseconds: Int { 1_000_000 }

    init(portCount: Int, programCount: Int) {
        let count = View.count(ports: portCount, programs: programCount)
        // Each part begins a cache line of its own: counters, their copy, and the words by which a copy is asked for.
        let room = (count + 7) / 8 * 8
        let memory = UnsafeMutableRawPointer.allocate(byteCount: (2 * room + CounterSnapshot.controlWords) * 8, alignment: Self.alignment)
        unsafe words = memory.initializeMemory(as: UInt64.self, repeating: 0, count: 2 * room + CounterSnapshot.controlWords)
        own = unsafe View(words, portCount: portCount, capture: capture)
        copied = unsafe View(words + room, portCount: portCount, capture: nil)
        snapshot = unsafe CounterSnapshot(of: words, count: count, into: words + room, control: words + 2 * room)
    }

    deinit {
        unsafe words.deallocate()
        capture.free()
    }

    /// The counters as they stood between two rounds of the lcore. Where it does not answer in time, as they stand, a packet
    /// or two on their way.
    func read<Result>(_ body: (View) -> Result) -> Result {
        reading.withLock { _ in
            snapshot.ask()
            var waited = 0
            while !snapshot.isAnswered, waited < Self.patienceMicroseconds {
                usleep(20)
                waited += 20
            }
            return body(snapshot.isAnswered ? copied : own)
        }
    }
}
