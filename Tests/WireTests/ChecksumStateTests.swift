import Testing
@testable import Wire

struct ChecksumStateTests {
    @Test func keepsEveryFieldApart() {
        let state = ChecksumState.known(start: 0xfffe, offset: 0x0010)
            .superframe(.tcp6, segmentSize: 0xabcd, congestion: true)
        #expect(state.kind == .known)
        #expect(state.start == 0xfffe)
        #expect(state.offset == 0x0010)
        #expect(state.segmentSize == 0xabcd)
        #expect(state.segmentation == .tcp6)
        #expect(state.hasCongestionBit)
        #expect(state.field == 0xfffe + 0x10)
        #expect(state.segmented == .known(start: 0xfffe, offset: 0x0010))
    }

    @Test func trust() {
        let trusted: [ChecksumState.Kind: ChecksumState] = [
            .none: .none, .bad: .bad, .unnecessary: .unnecessary(start: 34, offset: 16),
            .known: .known(start: 34, offset: 16), .opaque: .opaque(start: 34, offset: 16),
        ]
        #expect(trusted.filter { $0.value.isTrusted }.keys.sorted { $0.rawValue < $1.rawValue } == [.unnecessary, .known, .opaque])
        #expect(trusted.filter { $0.value.isPartial }.keys.sorted { $0.rawValue < $1.rawValue } == [.known, .opaque])
        for (kind, state) in trusted { #expect(state.kind == kind) }
    }

    /// Contract section 2: an opaque checksum, once complete, is nobody's to keep right.
    @Test func completion() {
        #expect(ChecksumState.known(start: 34, offset: 16).completed == .unnecessary(start: 34, offset: 16))
        #expect(ChecksumState.opaque(start: 34, offset: 16).completed == .none)
    }

    @Test func forgettingKeepsTheSuperframe() {
        let state = ChecksumState.known(start: 34, offset: 16).superframe(.tcp4, segmentSize: 1448, congestion: false).forgotten
        #expect(state.kind == .none)
        #expect(!state.isTrusted)
        #expect(state.isSuperframe && state.segmentSize == 1448)
    }

    @Test(arguments: [(-28, 6), (4, 38), (-34, 0)])
    func moves(delta: Int, start: Int) {
        let state = ChecksumState.known(start: 34, offset: 16).superframe(.tcp4, segmentSize: 1000, congestion: true)
        #expect(Int(state.moved(by: delta).start) == start)
        #expect(state.moved(by: delta).segmentSize == 1000)
        #expect(state.moved(by: delta).offset == 16)
    }

    @Test func enclosedIsOpaque() {
        #expect(ChecksumState.known(start: 62, offset: 16).enclosed == .opaque(start: 62, offset: 16))
        #expect(ChecksumState.unnecessary(start: 62, offset: 16).enclosed == .unnecessary(start: 62, offset: 16))
    }

    /// A field nobody wrote must not look like trust.
    @Test(arguments: [0, 5, 0xff, 0xdead_beef_0000_00ff] as [UInt64])
    func garbageIsNotTrusted(raw: UInt64) {
        #expect(!ChecksumState(rawValue: raw).isTrusted)
    }
}
