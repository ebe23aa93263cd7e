import DPDK
@testable import EBPF
import Foundation
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// Contract section 4: partial packets are finished where a program looks, before it looks, and nowhere else.
    @Suite struct LookTests {
        /// One program in one mode, with maps and counters of its own.
        private final class Stage {
            let program: LoadedProgram
            let counters = TestCounters()
            private let words: UnsafeMutablePointer<UInt64>
            private let stage: ProgramStage
            private let runs = Runs()

            init(_ program: LoadedProgram, _ mode: ChecksumMode) {
                self.program = program
                unsafe words = .allocate(capacity: ProgramCounters.words)
                unsafe words.initialize(repeating: 0, count: ProgramCounters.words)
                stage = unsafe ProgramStage(program, mode: mode, counters: ProgramCounters(at: words))
            }

            deinit { unsafe words.deallocate() }

            var looked: UInt64 { unsafe ProgramCounters(at: words).value(.looked) }

            struct Result: Equatable {
                var verdict: XDPVerdict?
                /// In normal form; empty where the packet goes nowhere.
                var bytes: [UInt8] = []
            }

            func run(_ frame: [UInt8], _ state: ChecksumState) -> Result {
                let packet = PacketBench.shared.packet(frame, state)
                stage.begin(packet, 0, of: runs, portIndex: 1, counters.checksums)
                stage.run(runs, count: 1)
                let verdict = stage.finish(packet, 0, of: runs, counters.checksums)
                guard verdict == .pass || verdict == .tx else { return Result(verdict: verdict) }
                Completion.complete(packet, .egress, TestCounters().checksums)
                var bytes = packet.bytes
                let headers = packet.headers()
                if headers.hasKnownChecksum, Reference.word(bytes, headers.checksumField) == 0xffff { Reference.put(&bytes, headers.checksumField, 0) }
                return Result(verdict: verdict, bytes: bytes)
            }

            var maps: [String: [[UInt8]: [UInt8]]] {
                Dictionary(uniqueKeysWithValues: program.maps.map { map in
                    (map.name, Dictionary(uniqueKeysWithValues: map.entries().map { ($0.key, $0.value) }))
                })
            }
        }

        private func stage(_ name: String, _ mode: ChecksumMode = .lazy) throws -> Stage {
            Stage(try #require(try Programs.load(try Programs.named(name))), mode)
        }

        private func partial(_ kind: Reference.Kind, payload: Int, tags: Int = 0, options: Int = 0) -> (frame: [UInt8], state: ChecksumState) {
            var frame = Reference.frame(kind, payload: payload, tags: tags, options: options)
            Reference.unfinish(&frame)
            return (frame, LookTests.known(frame))
        }

        static func known(_ frame: [UInt8]) -> ChecksumState {
            let place = Reference.transport(frame, at: Reference.l3(frame))
            return .known(start: UInt16(place.l4), offset: place.proto == 17 ? 6 : 16)
        }

        @Test func aVerifierSeesARightChecksum() throws {
            let stage = try stage("verify_drop")
            let (frame, state) = partial(.tcp4, payload: 0)
            #expect(stage.run(frame, state).verdict == .pass)
            #expect(stage.counters.full(.xdpRead) == 1 && stage.looked == 1)
            // Longer ones it does not read: nothing is finished.
            let longer = partial(.tcp4, payload: 100)
            #expect(stage.run(longer.frame, longer.state).verdict == .pass)
            #expect(stage.counters.fullTotal == 1)
            // What is wrong stays wrong: nobody vouches for it.
            var wrong = Reference.frame(.tcp4, payload: 0)
            Reference.put(&wrong, Reference.field(wrong, at: 14), 0x1234)
            #expect(stage.run(wrong, .none).verdict == .drop)
        }

        @Test func aReaderThatDoesNotLookCostsNothing() throws {
            for name in ["count", "ports_drop", "neighbours", "udp_none_dropped", "no_options"] {
                let stage = try stage(name)
                for kind in [Reference.Kind.tcp4, .udp4, .tcp6, .udp6] {
                    for tags in 0...2 {
                        let (frame, state) = partial(kind, payload: 33, tags: tags)
                        _ = stage.run(frame, state)
                    }
                }
                #expect(stage.counters.fullTotal == 0 && stage.looked == 0, "\(name)")
            }
        }

        /// The read that is one only in some packets: asked of the packet at hand.
        @Test func aPatternIsALookWhereItMeetsTheField() throws {
            let stage = try stage("pattern")
            let options = partial(.tcp4, payload: 40), plain = partial(.udp4, payload: 40)
            _ = stage.run(plain.frame, plain.state)          // UDP's field is at 40
            #expect(stage.counters.full(.xdpRead) == 0)
            _ = stage.run(options.frame, options.state)      // TCP's at 50, which is in 48 to 52
            #expect(stage.counters.full(.xdpRead) == 1)
        }

        /// A read-only program and a checksum nobody parsed: finished where it is read, not before.
        @Test func anOpaqueChecksumIsFinishedWhereItIsRead() throws {
            let stage = try stage("neighbours")
            let (frame, _) = partial(.tcp4, payload: 10)
            _ = stage.run(frame, .opaque(start: 34, offset: 30))
            #expect(stage.counters.fullTotal == 0)
            _ = stage.run(frame, .opaque(start: 34, offset: 0))     // the ports
            #expect(stage.counters.full(.xdpRead) == 1)
        }

        /// Finished in the middle of a run, then written to: the difference starts from the finished bytes.
        @Test func aLookBeforeStoresKeepsTheShadowTrue() throws {
            let stage = try stage("second_look")
            for payload in 0..<64 {
                let (frame, state) = partial(.udp4, payload: payload)
                let result = stage.run(frame, state)
                if result.verdict == .pass { #expect(Reference.isRight(result.bytes, at: 14)) }
            }
            #expect(stage.counters.full(.xdpRead) == 64 && stage.counters.fullTotal == 64)
        }

        /// "Packet too big" quotes the finished checksum of the whole packet, not of what is left of it.
        @Test func aQuoteHoldsTheArrivalsChecksum() throws {
            let (frame, state) = partial(.tcp4, payload: 800)
            let finished = Reference.completed(frame, start: 34, offset: 16)
            let result = try stage("icmp_too_big").run(frame, state)
            #expect(result.verdict == .tx && result.bytes.count == 14 + 28 + 64)
            #expect(Array(result.bytes[42...]) == Array(finished[14..<(14 + 64)]))
        }

        // MARK: C4

        /// Packets whose checksum is unfinished: all a port brings, with fields that come out as all zeros or ones more
        /// often than by chance, to addresses and ports that programs know.
        private struct PartialTraffic {
            var random: SystemRandomNumberGenerator = .init()

            mutating func next() -> (frame: [UInt8], state: ChecksumState) {
                let kind: Reference.Kind = [.tcp4, .udp4, .tcp4, .udp4, .tcp6, .udp6].randomElement(using: &random)!
                let is6 = kind == .tcp6 || kind == .udp6
                let payload = Bool.random(using: &random) ? [0, 2, 8, 12].randomElement(using: &random)! : Int.random(in: 0...700, using: &random)
                var frame = Reference.frame(kind, payload: payload, tags: [0, 0, 0, 1, 2].randomElement(using: &random)!,
                                            options: is6 ? 0 : [0, 0, 0, 1, 2, 10].randomElement(using: &random)!)
                let l3 = Reference.l3(frame), place = Reference.transport(frame, at: l3)
                let isTCP = place.proto == 6
                for at in place.l4..<frame.count where at >= place.l4 + (isTCP ? 20 : 8) { frame[at] = UInt8.random(in: 0...255, using: &random) }
                Reference.put(&frame, place.l4, Int.random(in: 0...0xffff, using: &random))
                if !is6, Bool.random(using: &random) {
                    Reference.put(&frame, place.l4 + 2, [8080, 5201, 53].randomElement(using: &random)!)
                    for (at, byte) in [10, 0, 0, UInt8.random(in: 1...100, using: &random)].enumerated() { frame[l3 + 16 + at] = byte }
                    if Bool.random(using: &random) { frame[l3 + 19] = 100 }
                }
                if isTCP {
                    frame[place.l4 + 13] = UInt8.random(in: 0...255, using: &random)
                    for at in 4..<12 { frame[place.l4 + at] = UInt8.random(in: 0...255, using: &random) }
                }
                Reference.finish(&frame, l3)
                if payload >= 2, Int.random(in: 0..<4, using: &random) == 0 {
                    // The payload word that makes the sum what is wanted.
                    let field = Reference.field(frame, at: l3), wanted = [0, 1, 0xffff, 0xfffe].randomElement(using: &random)!
                    let at = place.l4 + (isTCP ? 20 : 8)
                    let sum = Reference.fold(Reference.word(frame, at) + Reference.word(frame, field) + (0xffff - wanted))
                    Reference.put(&frame, at, sum)
                    Reference.finish(&frame, l3)
                }
                Reference.unfinish(&frame)
                return (frame, LookTests.known(frame))
            }
        }

        /// Lazy and eager agree on verdicts, maps and packets, for every program; APUS_SOAK times as many runs.
        @Test func lazyIsEager() throws {
            let soak = ProcessInfo.processInfo.environment["APUS_SOAK"].flatMap(Int.init) ?? 1
            var traffic = PartialTraffic(), runs = 0, saved = 0
            for path in Programs.all where !Programs.dependsOnTime(path) {
                let object = try Programs.compile(path)
                guard let program = try Programs.load(object), let twin = try Programs.load(object) else { continue }
                let lazy = Stage(program, .lazy), eager = Stage(twin, .eager)
                for _ in 0..<(4000 * soak) {
                    let (frame, state) = traffic.next()
                    let (a, b) = (lazy.run(frame, state), eager.run(frame, state))
                    runs += 1
                    try #require(a == b, "\(path): \(frame)")
                }
                #expect(lazy.maps == eager.maps, "\(path)")
                if lazy.counters.full(.xdpRead) == 0 { saved += 1 }
            }
            #expect(runs >= 100_000 * soak && saved >= 12, "\(runs) runs, \(saved) programs without a look")
        }

        // MARK: The rule

        /// The parser reaches no field the analysis' rule leaves out, whatever a program found out so far.
        @Test func theRuleCoversTheParser() {
            var traffic = PartialTraffic(), extended = 0
            for _ in 0..<20_000 {
                var (frame, _) = traffic.next()
                let at = Reference.l3(frame)
                if frame[at] >> 4 == 6 {
                    // Up to three extension headers of padding.
                    for kind in [UInt8(60), 60, 0].prefix(Int.random(in: 0...3, using: &traffic.random)) {
                        let units = Int.random(in: 0...2, using: &traffic.random)
                        frame.insert(contentsOf: [frame[at + 6], UInt8(units), 1, 4] + [UInt8](repeating: 0, count: 4 + 8 * units), at: at + 40)
                        frame[at + 6] = kind
                        Reference.put(&frame, at + 4, Reference.word(frame, at + 4) + 8 + 8 * units)
                    }
                }
                let headers = unsafe frame.withUnsafeBytes { bytes in
                    unsafe Headers.parse(bytes.baseAddress!, available: bytes.count, length: bytes.count, isSuperframe: false)
                }
                #expect(headers.hasKnownChecksum)
                extended += headers.hasExtensions ? 1 : 0
                let known = (0..<min(frame.count, 100)).map { (position: $0, value: frame[$0]) }
                for depth in 0...4 {
                    var facts = PacketFacts()
                    for step in 0..<depth {
                        if step < 3 { facts.learn(known.filter { $0.position / 4 == 3 + step && $0.position % 4 < 2 }) } else { facts.learn(known) }
                    }
                    let field = AbstractValue.pointer(.packet, at: Int64(headers.checksumField))
                    #expect(!facts.rulesOut(known))
                    #expect(facts.overlap(field, size: 2) != .none, "\(facts) \(frame)")
                    var wide = field
                    (wide.lower, wide.upper) = (field.lower - 20, field.lower + 20)
                    #expect(facts.overlap(wide, size: 1) != .none)
                }
            }
            #expect(extended > 1000)
        }
    }
}
