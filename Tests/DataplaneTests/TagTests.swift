import DPDK
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// Tags pushed and popped by the bridge: bytes, and the state that moves along.
    @Suite struct TagTests {
        private static let states: [ChecksumState] = [.none, .bad, .unnecessary(start: 34, offset: 16), .known(start: 34, offset: 16), .opaque(start: 40, offset: 2)]

        @Test(arguments: states) func pushedAndPopped(_ state: ChecksumState) {
            let frame = Reference.frame(.tcp4, payload: 20)
            let packet = PacketBench.shared.packet(frame, state)
            let pushed = packet.pushTag(.vlan, 0x6005)
            #expect(pushed)
            #expect(packet.bytes == Array(frame[..<12]) + [0x81, 0, 0x60, 5] + frame[12...])
            #expect(packet.state == (state.isTrusted ? state.moved(by: 4) : state))
            let outer = packet.pushTag(.serviceVLAN, 7)
            #expect(outer)
            #expect(packet.bytes == Array(frame[..<12]) + [0x88, 0xa8, 0, 7, 0x81, 0, 0x60, 5] + frame[12...])
            #expect(packet.popTag() == 7)
            #expect(packet.popTag() == 0x6005)
            #expect(packet.bytes == frame && packet.state == state)
            #expect(packet.popTag() == nil)
            #expect(packet.bytes == frame && packet.state == state)
        }

        @Test func aTagNeedsRoom() {
            let packet = PacketBench.shared.packet(Reference.frame(.tcp4, payload: 20), .none)
            unsafe packet.setWindow(start: packet.buffer + 3, count: 60)
            let pushed = packet.pushTag(.vlan, 1)
            #expect(!pushed && packet.dataLength == 60)
        }

        @Test func aTruncatedTagIsNone() {
            let packet = PacketBench.shared.packet(Array(Reference.frame(.tcp4, payload: 20, tags: 1).prefix(17)), .none)
            #expect(packet.popTag() == nil)
        }
    }
}
