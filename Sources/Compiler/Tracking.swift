internal import CLLVM
import EBPF

/// Which packet bytes a run may have written (checksum contract, section 3): only at stores that the analysis says can
/// reach the packet. A place known while compiling costs a constant; any other a few instructions.
extension FunctionEmitter {
    func record(_ register: Int, _ offset: Int, bytes: Int, at: Int) {
        guard !unit.isReadOnly, !isOwnFrame(register, offset, bytes: bytes, at: at), program.planted != .noTracking,
              !trackPlan.followers.contains(at) else { return }
        if let group = trackPlan.leaders[at] {
            let bits = program.planted == .groupedWrites ? 1 : group.bits
            return unsafe record(bits, at: place(register, group.lower), span: group.span, group.range)
        }
        guard let stores = unit.stores else { return recordAnywhere(register, offset, bytes) }
        guard let range = stores[at] else { return }
        if unit.certainStores.contains(at), TrackPlan.isFixed(range, bytes: bytes) { recordFixed(range) } else { recordAnywhere(register, offset, bytes) }
    }

    private func recordFixed(_ range: ByteRange) {
        // What lies in front of the arrival's first byte was recorded when the head grew.
        let lower = max(0, range.lower)
        guard lower < range.upper else { return }
        unsafe record(WrittenBytes.bits(0, Int(range.upper - lower)), at: ir.word(Int(lower)), span: Int(range.upper - lower), ByteRange(lower, range.upper))
    }

    /// From the arrival's first byte.
    private func place(_ register: Int, _ offset: Int) -> IR.Value {
        unsafe ir.add(ir.sub(self.register(register), packetPlace(.arrival)), ir.word(offset))
    }

    /// What lies outside of the packet is none of it: stack, maps, metadata. (The last byte tells, as in `Packet.willStore`.)
    private func recordAnywhere(_ register: Int, _ offset: Int, _ bytes: Int) {
        let last = unsafe ir.add(self.register(register), ir.word(offset + bytes - 1))
        let data = unsafe packetPlace(.data), end = unsafe packetPlace(.end)
        let inside = unsafe ir.newBlock("packet"), go = unsafe ir.newBlock("recorded")
        unsafe ir.branch(ir.below(ir.sub(last, data), ir.sub(end, data)), inside, go)
        unsafe ir.position(at: inside)
        unsafe record(WrittenBytes.bits(0, bytes), at: place(register, offset), span: bytes, nil)
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
    }

    /// Bit n: the byte at `place` + n, of `span` bytes. `range`: what the analysis says that place and span can be.
    private func record(_ bits: UInt64, at place: IR.Value, span: Int, _ range: ByteRange?) {
        let window = WrittenBytes.window
        func widen(_ bits: IR.Value) { unsafe setTrack(Tracks.written, ir.or(track(ir.i64, Tracks.written), bits)) }
        if let range, range.lower >= 0, range.upper <= window { return unsafe widen(ir.shl(ir.word(bits), place)) }
        let near = unsafe ir.newBlock("near"), far = unsafe ir.newBlock("far"), go = unsafe ir.newBlock("written")
        unsafe ir.branchRarely(ir.compare(LLVMIntUGT, place, ir.word(window - span)), far, near)
        unsafe ir.position(at: near)
        unsafe widen(ir.shl(ir.word(bits), place))
        unsafe ir.jump(go)
        unsafe ir.position(at: far)
        if program.planted != .farWrites { unsafe widen(ir.rarelyCalled("apus_wrote", ir.i64, [(track(ir.pointer, Tracks.effect), ir.pointer), (place, ir.i64), (ir.word(bits), ir.i64)])) }
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
    }
}
