internal import CLLVM
import EBPF

/// Which packet bytes a run may have written (checksum contract, section 3): only at stores that the analysis says can
/// reach the packet. A place known while compiling costs constants; any other a few instructions.
extension FunctionEmitter {
    func record(_ register: Int, _ offset: Int, bytes: Int, at: Int) {
        guard !unit.isReadOnly, !isOwnFrame(register, offset, bytes: bytes, at: at), program.planted != .noTracking,
              !trackPlan.followers.contains(at) else { return }
        if let group = trackPlan.leaders[at] { return recordGroup(group, register) }
        guard let stores = unit.stores else { return unsafe recordAddress(ir.add(self.register(register), ir.word(offset)), bytes) }
        guard let range = stores[at] else { return }
        if TrackPlan.isFixed(range, bytes: bytes), unit.certainStores.contains(at) { return recordFixed(range.lower, range.upper) }
        unsafe recordAddress(ir.add(self.register(register), ir.word(offset)), bytes)
    }

    private func recordGroup(_ group: TrackPlan.Group, _ register: Int) {
        let first = unsafe ir.add(packetPlace(.arrival), ir.word(Int(Tracks.plainL3)))
        program.hulls.insert(group.number)
        // Packets are shorter than 2 GiB.
        let place = unsafe ir.trunc(ir.sub(self.register(register), first), ir.i32)
        unsafe widen(Tracks.fixed + 8 * group.number, ir.add(place, ir.int(Int32(group.lower))), ir.add(place, ir.int(Int32(group.upper))), if: nil)
    }

    private func recordFixed(_ lower: Int32, _ upper: Int32) {
        for number in 0..<4 {
            let from = max(lower, Tracks.bounds[number]), to = min(upper, Tracks.bounds[number + 1])
            guard from < to else { continue }
            program.hulls.insert(number)
            unsafe widen(Tracks.fixed + 8 * number, ir.int(from - Tracks.plainL3), ir.int(to - Tracks.plainL3), if: nil)
        }
    }

    /// What lies outside of the packet is none of it: stack, maps, metadata.
    private func recordAddress(_ address: IR.Value, _ bytes: Int) {
        program.recordsAnywhere = true
        let data = unsafe packetPlace(.data), end = unsafe packetPlace(.end)
        let isPacket = unsafe ir.below(ir.sub(address, data), ir.sub(end, data))
        // Packets are shorter than 2 GiB.
        let lower = unsafe ir.trunc(ir.sub(address, packetPlace(.l3)), ir.i32)
        let upper = unsafe ir.add(lower, ir.int(Int32(bytes)))
        unsafe TrackEmitter(ir).record(program.tracks, lower, upper, if: isPacket)
    }

    private func widen(_ offset: Int, _ lower: IR.Value, _ upper: IR.Value, if condition: IR.Value?) {
        unsafe TrackEmitter(ir).widen(program.tracks, offset, lower, upper, if: condition)
    }
}

/// Hulls in a record of 32-bit bounds.
struct TrackEmitter {
    let ir: IR

    init(_ ir: IR) { self.ir = ir }

    func widen(_ record: IR.Value, _ offset: Int, _ lower: IR.Value, _ upper: IR.Value, if condition: IR.Value?) {
        let low = unsafe ir.offset(record, offset), high = unsafe ir.offset(record, offset + 4)
        let oldLow = unsafe ir.load(ir.i32, low, .run), oldHigh = unsafe ir.load(ir.i32, high, .run)
        let newLow = unsafe ir.signedMin(oldLow, lower), newHigh = unsafe ir.signedMax(oldHigh, upper)
        unsafe ir.store(condition.map { unsafe ir.select($0, newLow, oldLow) } ?? newLow, low, .run)
        unsafe ir.store(condition.map { unsafe ir.select($0, newHigh, oldHigh) } ?? newHigh, high, .run)
    }

    /// Relative to L3: what lies across it goes to both sides, as in `Effect.record`.
    func record(_ tracks: IR.Value, _ lower: IR.Value, _ upper: IR.Value, if condition: IR.Value) {
        let zero = unsafe ir.int(0)
        unsafe widen(tracks, Tracks.below, lower, ir.signedMin(upper, zero), if: ir.and(condition, ir.compare(LLVMIntSLT, lower, zero)))
        unsafe widen(tracks, Tracks.from, ir.signedMax(lower, zero), upper, if: ir.and(condition, ir.compare(LLVMIntSGT, upper, zero)))
    }
}
