import CDPDK
import CLinux
public import DPDK
import EBPF
import Wire

/// One polling loop: receives a burst from each of its ports in turn and carries it through all stages,
/// with no queue in between.
@safe public struct Lcore: ~Copyable {
    /// Packets in a burst: enough to spread a poll's cost, few enough for the first cache. With 64 it carries 2 to 4 % more than
    /// with 32 ('make bench-forward'), with 128 no more than that.
    public static var burstSize: Int { 64 }

    let slots: UnsafeMutableBufferPointer<PortSlot>
    var burst = Burst(capacity: burstSize)
    private let runs = Runs()
    let egress: Egress
    private let counters: LcoreCounters
    private let snapshot: CounterSnapshot?
    /// When the round before ended: what lies between two rounds is the loop itself.
    private(set) var lastCycles = apus_cycles()
    private var rest: Rest
    /// The taps beside others, when they are looked at, and which of them had something when they were.
    private let watch: TapWatch
    private var pacer = PollPacer(cyclesPerSecond: apus_cycles_per_second())
    private var readyTaps: UInt64 = 0
    private var round: UInt32 = 0
    /// Counts bursts: what is asked once a burst is asked when this has changed.
    private(set) var burstNumber: UInt32 = 0
    private var sweepCursor = 0

    /// Takes the slots over: `slots` is emptied. `watch` covers their receivers that have a bit.
    public init(slots: UnsafeMutableBufferPointer<PortSlot>, memory: PacketMemory, counters: LcoreCounters,
                checksums: ChecksumCounters, snapshot: CounterSnapshot? = nil, idle: Idle = .spin, watch: consuming TapWatch = TapWatch()) {
        self.watch = watch
        rest = Rest(idle)
        unsafe self.slots = slots
        self.counters = counters
        self.snapshot = snapshot
        egress = Egress(memory: memory, checksums: checksums)
    }

    deinit {
        unsafe slots.deinitialize().deallocate()
    }

    /// Polls until `stop` becomes true, which another thread writes.
    @_noLocks
    public mutating func run(until stop: UnsafePointer<Bool>) {
        lastCycles = apus_cycles()
        while unsafe !apus_flag_load(stop) { poll() }
    }

    /// What does not change from burst to burst, every 256 rounds.
    @_noLocks
    private mutating func keepHouse() {
        round &+= 1
        guard round & 0xff == 0 else { return }
        for number in unsafe slots.indices { unsafe slots[number].queue.refresh() }
        sweep()
    }

    /// Each bridge's table belongs to its first member here; a bridge more or less at a cursor meant for another only
    /// changes which entries are looked at.
    @_noLocks
    private mutating func sweep() {
        for number in unsafe slots.indices {
            guard let bridge = unsafe slots[number].bridge, unsafe bridge.members[0] == number else { continue }
            sweepCursor = bridge.table.sweep(from: sweepCursor, now: AddressTable.tick(lastCycles))
        }
    }

    /// One round over all ports.
    @_noLocks
    public mutating func poll() {
        var packets = 0
        if watch.isWatching { lookAtTaps() }
        for number in unsafe slots.indices {
            for receiver in unsafe slots[number].receivers.indices { packets &+= serve(number, receiver) }
        }
        keepHouse()
        let now = apus_cycles()
        counters.polled(packets: packets, cycles: now &- lastCycles)
        lastCycles = now
        snapshot?.answer()
        rest.after(packets: packets, now: now)
    }

    @_noLocks
    private mutating func lookAtTaps() {
        guard pacer.isDue(lastCycles) else { return }
        let began = apus_cycles()
        let found = watch.look()
        let cost = pacer.looked(began: began, ended: apus_cycles())
        if found == 0 { counters.lookedInVain(cycles: cost) }
        readyTaps |= found
    }

    /// Fills the burst, unless the queue is a watched tap that had nothing.
    @_noLocks
    private mutating func receive(_ number: Int, _ receiver: Int) {
        let bit = unsafe slots[number].receivers[receiver].watchBit
        guard bit == 0 || readyTaps & bit != 0 else { return }
        let queue = unsafe slots[number].receivers[receiver].queue
        unsafe queue.receive(into: &burst, slots[number].counters, egress.checksums)
        // What is left, of this queue or of another with the same bit, the next look finds.
        if !burst.isFull { readyTaps &= ~bit }
    }

    /// Receive, programs, forward, send: one port's burst, start to end.
    @_noLocks
    private mutating func serve(_ number: Int, _ receiver: Int) -> Int {
        receive(number, receiver)
        let received = burst.count
        guard received > 0 else { return 0 }
        unsafe slots[number].counters.capture?.received(burst)
        burstNumber &+= 1
        if unsafe slots[number].chain.count > 0 {
            unsafe slots[number].freshen(burstNumber)
            for stage in unsafe slots[number].chain.indices { run(stage, of: number) }
        }
        if !passesPlain(from: number) { forward(from: number) }
        unsafe slots[number].flush(egress.checksums)
        return received
    }

    /// Runs one program of the port's chain over the burst; what passes stays in it.
    @_noLocks
    private mutating func run(_ number: Int, of port: Int) {
        let stage = unsafe slots[port].chain[number]
        let begin = apus_cycles()
        var kept = 0, next = 0
        while next < burst.count {
            let first = next
            var count = 0
            while next < burst.count, count < Runs.capacity {
                if stage.takes(burst[next]) {
                    unsafe stage.begin(burst[next], count, of: runs, portIndex: slots[port].index, egress.checksums)
                    count &+= 1
                }
                next &+= 1
            }
            stage.run(runs, count: count)
            kept = finish(stage, first..<next, of: port, kept: kept)
        }
        burst.truncate(to: kept)
        stage.counters.spent(cycles: apus_cycles() &- begin)
    }

    /// Carries out the verdicts of the runs over some of the burst's packets.
    /// - Returns: how many packets the burst then keeps, of `kept` and these.
    @_noLocks
    private mutating func finish(_ stage: ProgramStage, _ some: Range<Int>, of port: Int, kept: Int) -> Int {
        var kept = kept, number = 0
        for at in some {
            let packet = burst.take(at)
            guard stage.takes(packet) else {
                unsafe slots[port].counters.dropped(.xdpNotLinear, packet)
                continue
            }
            let verdict = stage.finish(packet, number, of: runs, egress.checksums)
            number &+= 1
            switch verdict {
            case .pass:
                burst.keep(packet, at: kept)
                kept &+= 1
            case .tx:
                unsafe egress.send(packet, by: &slots[port])
            case .drop:
                unsafe slots[port].counters.dropped(.xdpDrop, packet)
            case .redirect:
                unsafe slots[port].counters.dropped(.xdpRedirect, packet)
            case .aborted:
                unsafe slots[port].counters.dropped(.xdpAborted, packet)
            }
        }
        return kept
    }

    /// Everything the programs left in the burst.
    @_noLocks
    private mutating func forward(from port: Int) {
        if let member = unsafe slots[port].bridge { return bridge(member, from: port) }
        let destination = unsafe slots[port].destination
        if destination >= 0 { return wire(from: port, to: destination) }
        unsafe slots[port].counters.dropped(.noDestination, burst)
        burst.drop()
    }
}
