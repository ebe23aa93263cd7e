import DPDK
@testable import EBPF
import Foundation
import Testing
import Wire
@testable import Dataplane

extension DPDKSuites {
    /// Contract section 7: random program × random packet × state, through the real loop. normal(lazy) = normal(eager),
    /// verdict and maps included (C4); trusted packets leave right (C2); nothing untrusted becomes right (C3).
    @Suite struct ContractPropertyTests {
        /// The four ways a packet is run.
        final class Lanes {
            let lazy, eager, finisher, plain: ContractRoad
            private let isCareful: Bool
            private let mayClear: Bool

            init(_ program: ContractProgram) throws {
                isCareful = program.isCareful
                mayClear = program.mayClear
                func road(_ mode: ChecksumMode, _ takes: TransmitCapabilities) throws -> ContractRoad {
                    ContractRoad(try Lanes.load(program), mode, takes: takes)
                }
                lazy = try road(.lazy, .everything)
                eager = try road(.eager, .everything)
                finisher = try road(.lazy, .nothing)
                plain = try road(.lazy, .everything)
            }

            static func load(_ program: ContractProgram) throws -> LoadedProgram {
                let first = LinkedProgram(name: "first", instructions: ContractEmitter.instructions(program.bodies, program.parse), maps: ContractEmitter.maps)
                guard let next = program.next else { return try ProgramSet(first.object, isSandboxed: true, isVerified: true).load([first]) }
                var maps = ContractEmitter.maps
                maps[1].initial = [0: "second"]
                let calls = LinkedProgram(name: "first", instructions: first.instructions, maps: maps)
                let second = LinkedProgram(name: "second", instructions: ContractEmitter.instructions(next, program.parse), maps: maps)
                return try ProgramSet(calls.object, isSandboxed: true, isVerified: true).load([calls, second])
            }

            /// What is wrong with a run; nil: nothing. Programs that leave wrong checksums are held to less.
            func fault(_ arrival: ContractTraffic.Arrival) -> String? {
                let a = lazy.run(arrival.frame, arrival.state), b = eager.run(arrival.frame, arrival.state)
                let c = finisher.run(arrival.frame, arrival.state)
                let d = plain.run(arrival.finished, .none)
                if a.verdict == 4 { return "aborted" }
                if a.verdict != b.verdict { return "verdicts \(a.verdict) and \(b.verdict)" }
                if a.map != b.map { return "maps \(a.map) and \(b.map)" }
                if a.packets.count != b.packets.count || a.cuts != b.cuts { return "\(a.packets.count) packets \(a.cuts) and \(b.packets.count) \(b.cuts)" }
                let isMaintained = d.packets.allSatisfy { packet in
                    // What an ICMP message quotes says nothing about the program; nor does a zero that careless arithmetic came to.
                    ContractPropertyTests.isRight(packet) ?? isCareful && (!ContractPropertyTests.isMessage(packet) || isCareful)
                }
                if a != b, arrival.state.isSuperframe || isMaintained || arrival.description == "wrong" { return "lazy \(a.packets)\neager \(b.packets)" }
                if a.verdict != d.verdict || a.map != d.map { return "verdict or map differ from those for the finished packet" }
                if !arrival.state.isSuperframe {
                    if isMaintained, mayClear ? a.packets != d.packets : !zip(a.packets, d.packets).allSatisfy(ContractPropertyTests.isSame) { return "lazy \(a.packets)\nfinished \(d.packets)" }
                    if c.packets != a.packets { return "lazy \(a.packets)\nto a port that takes nothing \(c.packets)" }
                }
                if arrival.state.isTrusted {
                    for (packet, isTrusted) in zip(a.packets, a.isTrusted) where isTrusted && ContractPropertyTests.isRight(packet) == false {
                        return "leaves trusted and wrong: \(packet)"
                    }
                    for packet in c.packets where isMaintained && ContractPropertyTests.isRight(packet) == false { return "leaves wrong: \(packet)" }
                } else {
                    if a.isTrusted.contains(true) { return "leaves trusted, arrived otherwise" }
                    if a.packets != d.packets { return "an untrusted packet was touched: \(a.packets) instead of \(d.packets)" }
                }
                return nil
            }
        }

        /// A finished packet that nobody vouches for leaves as the program's arithmetic left it, with a UDP checksum of zero
        /// now and then; where Apus finishes it, it is the same number's other form (RFC 768).
        static func isSame(_ found: [UInt8], _ finished: [UInt8]) -> Bool {
            let l3 = Reference.l3(finished)
            guard found != finished, isRight(found) == true, isRight(finished) == nil, finished[l3] >> 4 == 4, finished[l3 + 9] == 17 else { return found == finished }
            var other = finished
            Reference.put(&other, Reference.field(finished, at: l3), 0xffff)
            return found == other
        }

        /// An IPv4 packet with an ICMP message.
        static func isMessage(_ frame: [UInt8]) -> Bool {
            let at = Reference.l3(frame)
            return at + 28 <= frame.count && frame[at] >> 4 == 4 && frame[at + 9] == 1
        }

        /// Whether the TCP, UDP or ICMP checksum of a frame of one or two IP headers is right; nil: there is none.
        static func isRight(_ frame: [UInt8]) -> Bool? {
            var at = Reference.l3(frame)
            for _ in 0..<2 {
                guard at + 28 <= frame.count else { return nil }
                if isMessage(frame) { return [0, 0xffff].contains(Reference.sum(frame[(at + 20)..<(at + Reference.word(frame, at + 2))])) }
                let version = frame[at] >> 4
                guard version == 4 || version == 6 && at + 48 <= frame.count else { return nil }
                let proto = frame[at + (version == 4 ? 9 : 6)], next = at + (version == 4 ? Int(frame[at] & 15) * 4 : 40)
                if proto == 6 || proto == 17 {
                    let place = Reference.transport(frame, at: at)
                    guard place.l4 + place.length <= frame.count, place.length >= (proto == 6 ? 20 : 8) else { return false }
                    // A data offset that leads nowhere: malformed, and left as written (contract section 1, C2).
                    if proto == 6, !(20...place.length).contains(Int(frame[place.l4 + 12] >> 4) * 4) { return false }
                    // IPv6 has no datagrams without one (RFC 8200 section 8.1).
                    if proto == 17, Reference.word(frame, place.l4 + 6) == 0 { return version == 4 ? nil : false }
                    return Reference.isRight(frame, at: at)
                }
                guard proto == 4 || proto == 41 else { return nil }
                at = next
            }
            return nil
        }

        struct Case: Codable {
            var program: ContractProgram
            var frame, finished: [UInt8]
            var state: UInt64
            var description: String

            init(_ program: ContractProgram, _ arrival: ContractTraffic.Arrival) {
                (self.program, frame, finished, state, description) = (program, arrival.frame, arrival.finished, arrival.state.rawValue, arrival.description)
            }

            var arrival: ContractTraffic.Arrival { .init(finished: finished, frame: frame, state: ChecksumState(rawValue: state), description: description) }
        }

        static let kept = Programs.root.appendingPathComponent("Tests/Fixtures/contract")

        /// The least program that still fails on the packet.
        private func shrunk(_ case: Case) -> Case {
            var best = `case`
            func fails(_ program: ContractProgram) -> Bool { (try? Lanes(program).fault(best.arrival)) ?? nil != nil }
            var isSmaller = true
            while isSmaller {
                isSmaller = false
                for smaller in best.program.smaller where fails(smaller) {
                    best.program = smaller
                    isSmaller = true
                    break
                }
            }
            return best
        }

        /// Random programs, loaded, and fifty packets for each.
        struct Samples {
            private var source: ProgramSource

            init(seed: UInt64 = 20) { source = ProgramSource(random: Generator(seed)) }

            mutating func next() throws -> (program: ContractProgram, lanes: Lanes, arrivals: [ContractTraffic.Arrival]) {
                let program = source.next()
                var traffic = ContractTraffic(random: Generator(source.random.next()), magic: program.magic)
                return (program, try Lanes(program), (0..<50).map { _ in traffic.next() })
            }
        }

        /// APUS_SOAK times as many; APUS_SEED for others.
        @Test func lazyIsEagerIsPlain() throws {
            let environment = ProcessInfo.processInfo.environment
            let soak = environment["APUS_SOAK"].flatMap(Int.init) ?? 1
            var samples = Samples(seed: environment["APUS_SEED"].flatMap(UInt64.init) ?? 20)
            var runs = 0, programs = 0, looked: UInt64 = 0, full: UInt64 = 0, failures = 0
            var kinds: [String: Int] = [:]
            while runs < 25_000 * soak {
                let (program, lanes, arrivals) = try samples.next()
                programs += 1
                for arrival in arrivals {
                    runs += 1
                    kinds[arrival.description, default: 0] += 1
                    guard let fault = lanes.fault(arrival) else { continue }
                    let least = shrunk(Case(program, arrival))
                    let text = String(decoding: try JSONEncoder().encode(least), as: UTF8.self)
                    Issue.record("run \(runs), \(arrival.description) \(arrival.state): \(fault)\nkeep as Tests/Fixtures/contract/NAME.json: \(text)")
                    failures += 1
                    if failures >= 10 { return }
                    break
                }
                if runs % 100_000 == 0 { print("contract property: \(runs) runs, \(failures) faults") }
                looked += lanes.lazy.looked
                full += lanes.lazy.counters.fullTotal
            }
            print("contract property: \(programs) programs, \(runs) runs, \(looked) looked, \(full) full sums; \(kinds.sorted { $0.key < $1.key })")
            #expect(looked > UInt64(runs / 50) && looked < UInt64(runs / 2))
        }

        /// What once failed, shrunk.
        @Test func whatOnceFailedHolds() throws {
            for (name, kept) in try ContractPropertyTests.cases() {
                let fault = try Lanes(kept.program).fault(kept.arrival)
                #expect(fault == nil, "\(name)")
            }
        }

        /// The kept ones, by file.
        static func cases() throws -> [(name: String, kept: Case)] {
            let names = try FileManager.default.contentsOfDirectory(atPath: kept.path).filter { $0.hasSuffix(".json") }.sorted()
            return try names.map { ($0, try JSONDecoder().decode(Case.self, from: Data(contentsOf: kept.appendingPathComponent($0)))) }
        }
    }
}

extension ContractProgram {
    /// It may say that there is no checksum.
    var mayClear: Bool {
        func mayClear(_ block: Block) -> Bool {
            switch block {
            case .noChecksum, .eitherZero, .fromScratch: true
            case .half(let blocks): blocks.contains(where: mayClear)
            default: false
            }
        }
        return [bodies, next ?? [:]].contains { $0.values.contains { $0.blocks.contains(where: mayClear) } }
    }

    /// Whatever it changes, the checksum follows.
    var isCareful: Bool {
        func isCareful(_ block: Block) -> Bool {
            switch block {
            case .port(_, _, let fix), .address(_, _, let fix): fix != .none
            case .payload(_, _, let isKept): isKept
            case .half(let blocks): blocks.allSatisfy(isCareful)
            default: true
            }
        }
        return parse != .careless && [bodies, next ?? [:]].allSatisfy { $0.values.allSatisfy { $0.blocks.allSatisfy(isCareful) } }
    }

    /// Each with something less.
    var smaller: [ContractProgram] {
        var found: [ContractProgram] = []
        if next != nil {
            var less = self
            less.next = nil
            found.append(less)
        }
        for kind in Kind.allCases {
            for isNext in [false, true] {
                guard let body = isNext ? next?[kind] : bodies[kind] else { continue }
                func with(_ new: Body?) -> ContractProgram {
                    var less = self
                    if isNext { less.next?[kind] = new } else { less.bodies[kind] = new }
                    return less
                }
                found.append(with(nil))
                for index in body.blocks.indices {
                    var less = body
                    let removed = less.blocks.remove(at: index)
                    found.append(with(less))
                    if case .half(let inner) = removed {
                        less.blocks.insert(contentsOf: inner, at: index)
                        found.append(with(less))
                    }
                }
                if body.finish != .pass {
                    var less = body
                    less.finish = .pass
                    found.append(with(less))
                }
            }
        }
        if parse != .plain {
            var less = self
            less.parse = .plain
            found.append(less)
        }
        return found
    }
}
