/// A program made of blocks as NATs, balancers and filters are made of them. What the property test draws, shrinks and
/// keeps in files.
struct ContractProgram: Codable, Equatable {
    enum Kind: String, Codable, CaseIterable { case tcp4, udp4, tcp6, udp6, ipip }

    /// How the program finds the L4 header of IPv4.
    enum Parse: String, Codable, CaseIterable {
        /// Insists on five words.
        case plain
        /// Goes by the length field.
        case options
        /// Believes in five words without looking.
        case careless
    }

    /// How the checksum follows a change of the bytes it covers.
    enum Fix: String, Codable, CaseIterable {
        /// Not at all: Apus mends it.
        case none
        /// RFC 1624 equation 3: two folds, a loop, a jump a carry.
        case folded, loop, carries
        /// One 64-bit sum, folded in the end.
        case unfolded
        /// `bpf_csum_diff` seeded with the old checksum; two of them in a chain.
        case difference, chain
        /// In a function of its own.
        case subprogram
        /// With the field kept on the stack meanwhile, byte by byte.
        case spilled
        /// Read first, before what it covers changes.
        case early
    }

    enum Block: Codable, Equatable {
        case port(isSource: Bool, value: UInt16, Fix)
        case address(isSource: Bool, value: UInt32, Fix)
        /// TTL or hop limit, with the IPv4 header checksum kept right or left wrong.
        case ttl(isKept: Bool)
        /// The UDP way: leave a zero alone, write ones for a computed zero.
        case portUnlessZero(value: UInt16, writesOnes: Bool)
        case fromScratch
        case noChecksum
        /// A port, and one store for what follows: for one packet in two that there is no checksum.
        case eitherZero(value: UInt16)
        /// The field copied around and back, unchanged.
        case roundTrip(through: Trip)
        case payload(at: UInt8, value: UInt8, isKept: Bool)
        case urgent(value: UInt16)
        case count(port: Bool)
        case macSwap
        case vlanPush(UInt16)
        case trim
        case look(Look)
        /// Arms that depend on the field, and what comes of them.
        case arms(constant: UInt16, here: UInt8, there: UInt8, apart: Bool, shift: UInt8, End)
        /// The rest only for one packet in two: by a bit of the source port.
        case half([Block])
        case metadata
    }

    enum Trip: String, Codable, CaseIterable { case swaps, stack, bytes, self_ = "self" }
    enum Look: String, Codable, CaseIterable { case verdict, map, packet, key, wordAround, doubleAround, udpZero, verify, helper, index }
    enum End: String, Codable, CaseIterable { case map, verdict, stack, field, nothing }
    enum Finish: Codable, Equatable {
        case pass, tx
        /// Outer IPv4 header in front.
        case encapsulate
        /// ICMP "too big" that quotes so many bytes.
        case quote(UInt8)
        case tailCall
    }

    struct Body: Codable, Equatable {
        var blocks: [Block]
        var finish: Finish
    }

    var parse: Parse
    var bodies: [Kind: Body]
    /// What a tail call goes on in.
    var next: [Kind: Body]?
}

/// Draws programs.
struct ProgramSource {
    var random: Generator

    mutating func next() -> ContractProgram {
        let hasNext = Int.random(in: 0..<6, using: &random) == 0
        var program = ContractProgram(parse: pick(ContractProgram.Parse.allCases), bodies: [:], next: nil)
        if hasNext { program.next = bodies(isLast: true) }
        program.bodies = bodies(isLast: !hasNext)
        return program
    }

    private mutating func pick<T>(_ values: [T]) -> T { values.randomElement(using: &random)! }
    private mutating func chance(_ n: Int) -> Bool { Int.random(in: 0..<n, using: &random) == 0 }

    private mutating func bodies(isLast: Bool) -> [ContractProgram.Kind: ContractProgram.Body] {
        var bodies: [ContractProgram.Kind: ContractProgram.Body] = [:]
        for kind in ContractProgram.Kind.allCases where !chance(3) { bodies[kind] = body(kind, isLast: isLast) }
        return bodies
    }

    private mutating func body(_ kind: ContractProgram.Kind, isLast: Bool) -> ContractProgram.Body {
        let blocks = (0..<Int.random(in: 1...4, using: &random)).map { _ in block(kind, depth: 0) }
        var finish = ContractProgram.Finish.pass
        switch Int.random(in: 0..<10, using: &random) {
        case 0, 1: finish = .tx
        case 2 where kind == .tcp4 || kind == .udp4: finish = .encapsulate
        case 3 where kind == .tcp4 || kind == .udp4: finish = .quote(pick([28, 40, 64]))
        default: if !isLast { finish = .tailCall }
        }
        return .init(blocks: blocks, finish: finish)
    }

    private mutating func block(_ kind: ContractProgram.Kind, depth: Int) -> ContractProgram.Block {
        let fix = pick(ContractProgram.Fix.allCases), word = UInt16.random(in: 0...0xffff, using: &random)
        switch Int.random(in: 0..<(depth > 0 ? 24 : 27), using: &random) {
        case 0, 1, 2: return .port(isSource: Bool.random(using: &random), value: pick([word, word, 0, 0xffff]), fix)
        case 3, 4: return .address(isSource: Bool.random(using: &random), value: UInt32.random(in: 0 ... .max, using: &random), fix)
        case 5: return .ttl(isKept: Bool.random(using: &random))
        case 6: return .portUnlessZero(value: word, writesOnes: Bool.random(using: &random))
        case 7: return .fromScratch
        case 8: return chance(2) ? .noChecksum : chance(2) ? .eitherZero(value: word) : .count(port: Bool.random(using: &random))
        case 9, 10: return .roundTrip(through: pick(ContractProgram.Trip.allCases))
        case 11: return .payload(at: UInt8.random(in: 0..<8, using: &random), value: UInt8(truncatingIfNeeded: word), isKept: Bool.random(using: &random))
        case 12: return .urgent(value: word)
        case 13: return .macSwap
        case 14: return .count(port: Bool.random(using: &random))
        case 15, 16, 17: return .look(pick(ContractProgram.Look.allCases))
        case 18, 19, 20, 21:
            return .arms(constant: pick([0, 1, 0xffff, 0xff00, word]), here: pick([0, 1, 5, 255]), there: pick([0, 1, 3, 254]), apart: Bool.random(using: &random),
                         shift: pick([0, 1, 8]), pick(ContractProgram.End.allCases))
        case 22: return .metadata
        case 23: return depth < 2 ? .half((0..<Int.random(in: 1...2, using: &random)).map { _ in block(kind, depth: depth + 1) }) : .macSwap
        case 24: return .vlanPush(word & 0xfff)
        default: return .trim
        }
    }
}

/// SplitMix64: the same draws on every machine.
struct Generator: RandomNumberGenerator, Sendable {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}
