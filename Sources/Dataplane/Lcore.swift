import CDPDK
public import DPDK
import EBPF
import Wire

/// One polling loop: receives a burst from each of its ports in turn and carries it through all stages,
/// with no queue in between.
@safe public struct Lcore: ~Copyable {
    /// Packets in a burst: enough to spread a poll's cost, few enough for the first cache.
    public static var burstSize: Int { 32 }

    private let slots: UnsafeMutableBufferPointer<PortSlot>
    private var burst = Burst(capacity: burstSize)
    private var shadow = Shadow()
    private let egress: Egress
    private let counters: LcoreCounters
    /// When the round before ended: what lies between two rounds is the loop itself.
    private var lastCycles: UInt64 = 0

    /// Takes the slots over: `slots` is emptied.
    public init(slots: UnsafeMutableBufferPointer<PortSlot>, memory: PacketMemory, counters: LcoreCounters,
                checksums: ChecksumCounters) {
        unsafe self.slots = slots
        self.counters = counters
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

    /// One round over all ports.
    @_noLocks
    public mutating func poll() {
        var packets = 0
        for number in unsafe slots.indices { packets &+= serve(number) }
        let now = apus_cycles()
        counters.polled(packets: packets, cycles: now &- lastCycles)
        lastCycles = now
    }

    /// Receive, programs, forward, send: one port's burst, start to end.
    @_noLocks
    private mutating func serve(_ number: Int) -> Int {
        unsafe slots[number].queue.receive(into: &burst, slots[number].counters, egress.checksums)
        let received = burst.count
        guard received > 0 else { return 0 }
        let destination = unsafe slots[number].destination
        unsafe slots[number].refreshCapabilities()
        if destination >= 0, destination != number { unsafe slots[destination].refreshCapabilities() }
        for stage in unsafe slots[number].chain.indices { run(stage, of: number) }
        forward(from: number, to: destination)
        if destination >= 0 { unsafe slots[destination].flush(egress.checksums) }
        unsafe slots[number].flush(egress.checksums)
        return received
    }

    /// Runs one program of the port's chain over the burst; what passes stays in it.
    @_noLocks
    private mutating func run(_ number: Int, of port: Int) {
        let stage = unsafe slots[port].chain[number]
        let index = unsafe slots[port].index
        let begin = apus_cycles()
        var kept = 0
        for at in 0..<burst.count {
            let packet = burst.take(at)
            let verdict = stage.run(packet, portIndex: index, &shadow, egress.checksums)
            switch verdict {
            case .pass:
                burst.keep(packet, at: kept)
                kept &+= 1
            case .tx:
                unsafe egress.send(packet, by: &slots[port])
            case .drop:
                unsafe slots[port].counters.dropped(.xdpDrop)
            case .redirect:
                unsafe slots[port].counters.dropped(.xdpRedirect)
            case .aborted:
                unsafe slots[port].counters.dropped(.xdpAborted)
            case nil:
                unsafe slots[port].counters.dropped(.xdpNotLinear)
            }
        }
        burst.truncate(to: kept)
        stage.counters.spent(cycles: apus_cycles() &- begin)
    }

    /// The wire: everything left in the burst goes to the other end.
    @_noLocks
    private mutating func forward(from port: Int, to destination: Int) {
        guard destination >= 0 else {
            unsafe slots[port].counters.dropped(.noDestination, burst.count)
            burst.drop()
            return
        }
        for at in 0..<burst.count { unsafe egress.send(burst.take(at), by: &slots[destination]) }
        burst.truncate(to: 0)
    }
}
