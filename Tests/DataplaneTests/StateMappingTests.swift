import CLinux
import Testing
import Wire
@testable import DPDK

extension DPDKSuites {
    /// Contract section 2: what a virtio header says, believed only as far as it can be checked.
    @Suite struct StateMappingTests {
        struct Row: Sendable, CustomTestStringConvertible {
            let testDescription: String
            let frame: [UInt8]
            var flags = 0, gso = 0, size = 0, start = 0, offset = 0
            let expected: ChecksumState?
            var reason: DropReason?
        }

        static let needsChecksum = 1, dataValid = 2, tcp4 = 1, udp = 3, tcp6 = 4, ecn = 0x80

        static func seeded(_ kind: Reference.Kind, payload: Int = 50) -> [UInt8] {
            var frame = Reference.frame(kind, payload: payload)
            Reference.unfinish(&frame)
            return frame
        }

        static let known4 = ChecksumState.known(start: 34, offset: 16)
        static let rows: [Row] = [
            Row(testDescription: "nothing said", frame: seeded(.tcp4), expected: ChecksumState.none),
            Row(testDescription: "TCP", frame: seeded(.tcp4), flags: needsChecksum, start: 34, offset: 16, expected: known4),
            Row(testDescription: "UDP of IPv6", frame: seeded(.udp6), flags: needsChecksum, start: 54, offset: 6, expected: .known(start: 54, offset: 6)),
            Row(testDescription: "a field that is no seed", frame: Reference.frame(.tcp4, payload: 50), flags: needsChecksum, start: 34, offset: 16, expected: .opaque(start: 34, offset: 16)),
            Row(testDescription: "a place that is no field", frame: seeded(.tcp4), flags: needsChecksum, start: 34, offset: 4, expected: .opaque(start: 34, offset: 4)),
            Row(testDescription: "a start inside the payload", frame: seeded(.tcp4), flags: needsChecksum, start: 60, offset: 6, expected: .opaque(start: 60, offset: 6)),
            Row(testDescription: "the last two bytes", frame: seeded(.tcp4), flags: needsChecksum, start: 100, offset: 2, expected: .opaque(start: 100, offset: 2)),
            Row(testDescription: "one byte past the end", frame: seeded(.tcp4), flags: needsChecksum, start: 100, offset: 3, expected: nil, reason: .badChecksumPlace),
            Row(testDescription: "start past the end", frame: seeded(.tcp4), flags: needsChecksum, start: 65_535, offset: 65_535, expected: nil, reason: .badChecksumPlace),
            Row(testDescription: "offset past the end", frame: seeded(.tcp4), flags: needsChecksum, start: 34, offset: 65_535, expected: nil, reason: .badChecksumPlace),
            Row(testDescription: "verified TCP", frame: Reference.frame(.tcp4, payload: 50), flags: dataValid, expected: .unnecessary(start: 34, offset: 16)),
            Row(testDescription: "verified UDP", frame: Reference.frame(.udp4, payload: 50), flags: dataValid, expected: .unnecessary(start: 34, offset: 6)),
            Row(testDescription: "verified, not IP", frame: [UInt8](repeating: 2, count: 60), flags: dataValid, expected: ChecksumState.none),
            Row(testDescription: "superframe", frame: seeded(.tcp4, payload: 5000), flags: needsChecksum, gso: tcp4, size: 1448, start: 34, offset: 16,
                expected: known4.superframe(.tcp4, segmentSize: 1448, congestion: false)),
            Row(testDescription: "superframe of IPv6 with ECN", frame: seeded(.tcp6, payload: 5000), flags: needsChecksum, gso: tcp6 | ecn, size: 1428, start: 54, offset: 16,
                expected: .known(start: 54, offset: 16).superframe(.tcp6, segmentSize: 1428, congestion: true)),
            Row(testDescription: "superframe that fits a segment", frame: seeded(.tcp4), flags: needsChecksum, gso: tcp4, size: 50, start: 34, offset: 16, expected: known4),
            Row(testDescription: "superframe of size 0", frame: seeded(.tcp4, payload: 5000), flags: needsChecksum, gso: tcp4, size: 0, start: 34, offset: 16, expected: nil, reason: .badSuperframe),
            Row(testDescription: "superframe without a partial checksum", frame: seeded(.tcp4, payload: 5000), gso: tcp4, size: 1448, expected: nil, reason: .badSuperframe),
            Row(testDescription: "superframe whose field is no seed", frame: Reference.frame(.tcp4, payload: 5000), flags: needsChecksum, gso: tcp4, size: 1448, start: 34, offset: 16, expected: nil, reason: .badSuperframe),
            Row(testDescription: "superframe of UDP, to be cut into IP fragments", frame: seeded(.udp4, payload: 5000), flags: needsChecksum, gso: udp, size: 1448, start: 34, offset: 6,
                expected: .known(start: 34, offset: 6).superframe(.udpFragment, segmentSize: 1448, congestion: false)),
            Row(testDescription: "fragments of no multiple of 8", frame: seeded(.udp4, payload: 5000), flags: needsChecksum, gso: udp, size: 1449, start: 34, offset: 6, expected: nil, reason: .badSuperframe),
            Row(testDescription: "segments of one byte", frame: seeded(.tcp4, payload: 5000), flags: needsChecksum, gso: tcp4, size: 1, start: 34, offset: 16, expected: nil, reason: .badSuperframe),
        ]

        private func header(_ row: Row) -> apus_vnet_header {
            apus_vnet_header(flags: UInt8(row.flags), gso_type: UInt8(row.gso), header_length: 0, gso_size: UInt16(row.size),
                             csum_start: UInt16(row.start), csum_offset: UInt16(row.offset), buffers: 0)
        }

        @Test(arguments: rows) func arrival(_ row: Row) {
            let packet = PacketBench.shared.packet(row.frame, .none)
            switch StateMapping.arrival(of: packet, header(row)) {
            case .state(let state): #expect(state == row.expected)
            case .drop(let reason): #expect(row.expected == nil && reason == row.reason)
            }
            let bytes = packet.bytes
            #expect(bytes == row.frame, "believing changes no byte")
        }

        /// Some senders seed superframes without the length; the state then promises it, so it is put in at once.
        @Test func superframeSeedWithoutLength() {
            var frame = Self.seeded(.tcp4, payload: 5000)
            let right = frame
            let place = Reference.transport(frame, at: 14)
            Reference.put(&frame, 50, Reference.fold(place.pseudo + (~place.length & 0xffff)))
            #expect(frame != right)
            let packet = PacketBench.shared.packet(frame, .none)
            let row = Row(testDescription: "", frame: frame, flags: 1, gso: 1, size: 1448, start: 34, offset: 16, expected: nil)
            guard case .state(let state) = StateMapping.arrival(of: packet, header(row)) else { Issue.record("dropped"); return }
            #expect(state.kind == .known && state.isSuperframe)
            #expect(packet.bytes == right)
        }

        /// What is told to a receiver, told back, is the same.
        @Test func headersGoThereAndBack() {
            for row in Self.rows {
                guard let state = row.expected, state.isPartial else { continue }
                let header = StateMapping.header(for: state)
                let packet = PacketBench.shared.packet(row.frame, .none)
                guard case .state(let back) = StateMapping.arrival(of: packet, header) else { Issue.record("dropped"); continue }
                #expect(back == state)
            }
            for state in [ChecksumState.none, .bad, .unnecessary(start: 34, offset: 16)] {
                let header = StateMapping.header(for: state)
                #expect(header.flags == 0 && header.gso_type == 0)
            }
        }
    }
}
