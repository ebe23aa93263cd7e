import CDPDK
import DPDK
public import EBPF
import Wire

/// One program of a port's chain, and what keeps its packets' checksums true.
///
/// Reads: the burst and each packet's state. Writes: whatever the program writes; states; checksum fields.
/// Next: the following program of the chain for `PASS`, the ingress port for `TX`; the rest ends here.
public struct ProgramStage {
    let runner: Runner
    let mode: ChecksumMode
    /// A program without a reachable packet store carries no tracking at all.
    let canWrite: Bool
    /// It, or in a program that cannot write: anything, may read a checksum that is not finished.
    let watchesChecksum: Bool
    /// A zero in UDP's checksum field may be the program's decision.
    let mayClearChecksum: Bool
    /// It was written for packets in several buffers (section `xdp.frags`).
    let isFragsAware: Bool
    let counters: ProgramCounters

    /// - Parameter program: outlives the stage.
    public init(_ program: LoadedProgram, mode: ChecksumMode, counters: ProgramCounters) {
        runner = unsafe program.runner
        canWrite = program.canWrite
        watchesChecksum = program.watchesChecksum
        mayClearChecksum = program.mayClearChecksum
        isFragsAware = program.isFragsAware
        self.mode = mode
        self.counters = counters
    }

    /// Whether the packet can be shown to the program: in several buffers only where it was written for that.
    @_noLocks
    func takes(_ packet: borrowing Packet) -> Bool { packet.isLinear || isFragsAware }

    /// Prepares the run with this number: what the program is shown, and what it takes to know afterwards what it did.
    @_noLocks
    func begin(_ packet: borrowing Packet, _ number: Int, of runs: borrowing Runs, portIndex: UInt32, _ checksums: ChecksumCounters) {
        switch mode {
        case .eager:
            Completion.complete(packet, .mode, checksums)
        case .lazy, .full:
            // Nobody knows what an opaque checksum covers, so nothing can be kept right after a write.
            if canWrite, packet.state.kind == .opaque, !Planted.breaks(.opaqueWritten) { Completion.complete(packet, .xdpWrite, checksums) }
        }
        if canWrite { unsafe runs.shadows[number].take(packet) } else { unsafe apus_prefetch(packet.data) }
        let start = unsafe packet.data
        unsafe (runs.contexts + number).initialize(to: XDPContext(
            data: start, dataEnd: start + packet.dataLength, dataMeta: start, bufferStart: packet.buffer,
            bufferEnd: packet.buffer + packet.bufferLength, ingressIndex: portIndex,
            rxQueue: 0, isMultiBuffer: !packet.isLinear, bytesBehind: packet.length &- packet.dataLength))
        let state = packet.state
        guard watchesChecksum, state.isPartial else { return }
        let look = unsafe runs.looks + number
        unsafe look.initialize(to: Look(mbuf: packet.mbuf, shadow: runs.shadows[number].bytes,
                                        shadowCount: canWrite ? runs.shadows[number].count : 0, checksums: checksums))
        unsafe runs.contexts[number].unfinished = UnfinishedChecksum(field: state.field, isOpaque: state.kind == .opaque,
                                                                     complete: finishForLook, argument: look)
    }

    /// Runs the program on the first `count` that were prepared.
    @_noLocks
    func run(_ runs: borrowing Runs, count: Int) { unsafe runner.run(runs.contexts, runs.effects, count: count) }

    /// Makes the packet and its checksum what its run left, and reconciles.
    @_noLocks
    func finish(_ packet: borrowing Packet, _ number: Int, of runs: borrowing Runs, _ checksums: ChecksumCounters) -> XDPVerdict {
        let (data, end) = unsafe (runs.contexts[number].data, runs.contexts[number].dataEnd)
        if unsafe data != packet.data || end != packet.data + packet.dataLength { unsafe packet.setWindow(start: data, count: end - data) }
        let effect = unsafe runs.effects[number]
        counters.ran(effect)
        if effect.moved { checksums.worked(.headroomMoves) }
        guard effect.verdict == .pass || effect.verdict == .tx else { return effect.verdict }
        if effect.wrote {
            unsafe Reconcile(counters: checksums, mayClearChecksum: mayClearChecksum)(packet, effect, runs.shadows[number])
            if mode == .full { recomputed(packet, checksums) }
        }
        if packet.state.isSuperframe, packet.state.kind == .unnecessary { reseeded(packet, checksums) }
        return effect.verdict
    }

    /// Mode `full`: whatever the program wrote, the checksum is summed anew.
    @_noLocks
    private func recomputed(_ packet: borrowing Packet, _ checksums: ChecksumCounters) {
        let state = packet.state
        if state.isPartial { return Completion.complete(packet, .mode, checksums) }
        guard state.kind == .unnecessary else { return }
        let headers = packet.headers()
        guard headers.hasCertainChecksum, headers.l4 == Int(state.start) else { return }
        Completion.recompute(packet, headers, .mode, checksums)
    }

    /// A superframe travels unfinished: its segments need a seed, not the sum over all of them.
    @_noLocks
    private func reseeded(_ packet: borrowing Packet, _ checksums: ChecksumCounters) {
        let state = packet.state
        let headers = packet.headers()
        guard headers.hasKnownChecksum, headers.l4 == Int(state.start) else {
            packet.state = state.forgotten
            return
        }
        _ = Completion.seed(packet, headers, checksums)
        packet.state = state.reseeded(start: state.start, offset: state.offset)
    }
}
