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

    /// Runs the program on one packet and reconciles.
    /// - Returns: nil where the packet cannot be shown to the program.
    @_noLocks
    func run(_ packet: borrowing Packet, portIndex: UInt32, _ shadow: inout Shadow,
             _ checksums: ChecksumCounters) -> XDPVerdict? {
        guard packet.isLinear || isFragsAware else { return nil }
        switch mode {
        case .eager:
            Completion.complete(packet, .mode, checksums)
        case .lazy, .full:
            // Nobody knows what an opaque checksum covers, so nothing can be kept right after a write.
            if canWrite, packet.state.kind == .opaque { Completion.complete(packet, .xdpWrite, checksums) }
        }
        if canWrite { shadow.take(packet) }
        let effect = execute(packet, portIndex, shadow, checksums)
        counters.ran(effect)
        if effect.moved { checksums.worked(.headroomMoves) }
        guard effect.verdict == .pass || effect.verdict == .tx else { return effect.verdict }
        if effect.wrote {
            Reconcile(counters: checksums, mayClearChecksum: mayClearChecksum)(packet, effect, shadow)
            if mode == .full { recomputed(packet, checksums) }
        }
        if packet.state.isSuperframe, packet.state.kind == .unnecessary { reseeded(packet, checksums) }
        return effect.verdict
    }

    @_noLocks
    private func execute(_ packet: borrowing Packet, _ portIndex: UInt32, _ shadow: borrowing Shadow,
                         _ checksums: ChecksumCounters) -> Effect {
        let start = unsafe packet.data
        let end = unsafe start + packet.dataLength
        var context = unsafe XDPContext(data: start, dataEnd: end, dataMeta: start, bufferStart: packet.buffer,
                                        bufferEnd: packet.buffer + packet.bufferLength, l3Offset: shadow.headers.l3,
                                        ingressIndex: portIndex, rxQueue: 0, isMultiBuffer: !packet.isLinear,
                                        bytesBehind: packet.length &- packet.dataLength)
        let state = packet.state
        var look = unsafe Look(mbuf: packet.mbuf, shadow: shadow.bytes, shadowCount: canWrite ? shadow.count : 0, checksums: checksums)
        let effect: Effect
        if watchesChecksum, state.isPartial {
            effect = unsafe withUnsafeMutablePointer(to: &look) { look in
                unsafe context.unfinished = UnfinishedChecksum(field: state.field, isOpaque: state.kind == .opaque,
                                                               complete: finishForLook, argument: look)
                return runner.run(&context)
            }
        } else {
            effect = runner.run(&context)
        }
        if unsafe context.data != start || context.dataEnd != end {
            unsafe packet.setWindow(start: context.data, count: context.dataEnd - context.data)
        }
        return effect
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
