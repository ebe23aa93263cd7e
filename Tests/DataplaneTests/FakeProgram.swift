import DPDK
import EBPF
@testable import Dataplane

/// A program as a closure over bytes, with the effect an engine would report for it: what the contract says
/// about effects, written here a second time.
struct FakeProgram {
    /// The packet's bytes and where its original first byte now is (negative: cut off).
    struct View {
        var bytes: [UInt8]
        private(set) var grown = 0
        private(set) var tailDelta = 0
        private(set) var lowestEnd = 0
        private(set) var written: [Int] = []
        private var lowestStart = 0

        init(_ bytes: [UInt8]) { self.bytes = bytes }

        /// Stores at `at` of the packet as it is now.
        mutating func store(_ at: Int, _ values: [UInt8]) {
            for (index, value) in values.enumerated() {
                bytes[at + index] = value
                written.append(at + index - grown)
            }
        }

        mutating func store16(_ at: Int, _ value: Int) { store(at, [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)]) }

        /// bpf_xdp_adjust_head: negative grows.
        mutating func adjustHead(_ delta: Int) {
            if delta < 0 {
                bytes = [UInt8](repeating: 0xaa, count: -delta) + bytes
                grown -= delta
                written += Array(-grown..<(-grown - delta))
            } else {
                bytes.removeFirst(delta)
                grown -= delta
            }
        }

        /// bpf_xdp_adjust_tail: grown bytes are zero and count as written.
        mutating func adjustTail(_ delta: Int) {
            let end = bytes.count - grown
            if delta < 0 { bytes.removeLast(-delta) } else {
                bytes += [UInt8](repeating: 0, count: delta)
                written += Array(end..<end + delta)
            }
            tailDelta += delta
            lowestEnd = min(lowestEnd, tailDelta)
        }
    }

    let run: (inout View) -> Void

    /// Runs on the packet and reports, as an engine does.
    func callAsFunction(_ packet: borrowing Packet) -> Effect {
        var view = View(packet.bytes)
        run(&view)
        var effect = Effect()
        effect.verdict = .pass
        effect.cleared = true
        for at in view.written { effect.written.record(at, at + 1) }
        effect.headDelta = Int32(-view.grown)
        effect.tailDelta = Int32(view.tailDelta)
        effect.lowestEnd = Int32(view.lowestEnd)
        unsafe packet.setWindow(start: packet.data - view.grown, count: view.bytes.count)
        unsafe view.bytes.withUnsafeBytes { unsafe packet.data.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        return effect
    }
}
