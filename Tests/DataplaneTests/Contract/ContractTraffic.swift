import Wire

/// Packets for the property test: finished, with right checksums, and how they arrive.
struct ContractTraffic {
    struct Arrival {
        /// As it is on the wire.
        var finished: [UInt8]
        /// As the port brings it.
        var frame: [UInt8]
        var state: ChecksumState
        /// Where the state's header stands; nil: none is named.
        var description: String
    }

    var random: Generator
    /// Numbers the program compares the field with, or that make what it computes come out as zero: hit more often than
    /// by chance.
    var magic: [UInt16] = []

    private mutating func pick<T>(_ values: [T]) -> T { values.randomElement(using: &random)! }
    private mutating func chance(_ n: Int) -> Bool { Int.random(in: 0..<n, using: &random) == 0 }

    mutating func next() -> Arrival {
        let isSuper = chance(10)
        let kind: Reference.Kind = isSuper ? pick([.tcp4, .tcp4, .tcp6]) : pick([.tcp4, .udp4, .tcp4, .udp4, .tcp6, .udp6])
        let is6 = kind == .tcp6 || kind == .udp6, isTCP = kind == .tcp4 || kind == .tcp6
        let payload = isSuper ? Int.random(in: 300...1200, using: &random) : pick([0, 1, 2, 4, 8, 12, 40, Int.random(in: 0...300, using: &random)])
        var frame = Reference.frame(kind, payload: payload, tags: pick([0, 0, 0, 1, 1, 2]), options: is6 ? 0 : pick([0, 0, 0, 1, 3, 10]))
        let l3 = Reference.l3(frame), place = Reference.transport(frame, at: l3)
        let header = isTCP ? 20 : 8
        for at in place.l4 + header..<frame.count { frame[at] = UInt8.random(in: 0...255, using: &random) }
        for at in [0, 1, 2, 3] { frame[place.l4 + at] = UInt8.random(in: 0...255, using: &random) }
        if isTCP { for at in 4..<12 { frame[place.l4 + at] = UInt8.random(in: 0...255, using: &random) } }
        if !is6 { for at in 12..<20 { frame[l3 + at] = UInt8.random(in: 0...255, using: &random) } }
        let padding = isSuper || !chance(6) ? 0 : Int.random(in: 1...8, using: &random)
        var wanted = pick([0, 1, 0xffff, 0xfffe] + magic.map { Int($0) } + magic.map { Int($0) })
        // The seed, by an address; or the finished field, by a word of the payload.
        let isSeed = chance(4), isField = !isSeed && payload >= 2 && chance(2)
        if isSeed {
            let at = is6 ? l3 + 22 : l3 + 14
            // What a port's change by the wrong sign makes zero of.
            if let new = magic.randomElement(using: &random), chance(2) { wanted = Reference.fold(Int(new) + 0xffff - Reference.word(frame, place.l4 + pick([0, 2]))) }
            wanted = wanted == 0 ? 0xffff : wanted
            let rest = Reference.fold(Reference.transport(frame, at: l3).pseudo + 0xffff - Reference.word(frame, at))
            Reference.put(&frame, at, Reference.fold(wanted + 0xffff - rest))
        }
        Reference.finish(&frame, l3)
        if isField {
            let at = place.l4 + header, field = Reference.field(frame, at: l3)
            Reference.put(&frame, at, Reference.fold(Reference.word(frame, at) + Reference.word(frame, field) + (0xffff - wanted)))
            Reference.finish(&frame, l3)
        }
        if chance(12), !isSuper { return tunnelled(frame) }
        frame += [UInt8](repeating: 0xee, count: padding)
        return arrival(frame, kind, isSuper: isSuper)
    }

    /// IPv4 in IPv4: the inner checksum is named, if any.
    private mutating func tunnelled(_ inner: [UInt8]) -> Arrival {
        let l3 = Reference.l3(inner), packet = Array(inner[l3...])
        var frame = Array(inner[..<12]) + [8, 0, 0x45, 0] + Reference.bytes16(20 + packet.count) + [0, 1, 0, 0, 64, packet[0] >> 4 == 4 ? 4 : 41, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]
        Reference.put(&frame, 24, ~Reference.sum(frame[14..<34]) & 0xffff)
        frame += packet
        let place = Reference.transport(frame, at: 34), offset = UInt16(place.proto == 17 ? 6 : 16)
        let start = UInt16(place.l4)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: return Arrival(finished: frame, frame: frame, state: .none, description: "tunnelled")
        case 1: return Arrival(finished: frame, frame: frame, state: .unnecessary(start: start, offset: offset), description: "tunnelled, verified")
        default:
            var seeded = frame
            Reference.put(&seeded, place.l4 + Int(offset), place.pseudo)
            return Arrival(finished: ContractTraffic.ones(frame, place.l4 + Int(offset)), frame: seeded,
                           state: .opaque(start: start, offset: offset), description: "tunnelled, opaque")
        }
    }

    /// What completion leaves where the sum is zero: ones, for TCP as for UDP, as Linux does (skb_checksum_help).
    private static func ones(_ frame: [UInt8], _ field: Int) -> [UInt8] {
        var frame = frame
        if Reference.word(frame, field) == 0 { Reference.put(&frame, field, 0xffff) }
        return frame
    }

    private mutating func arrival(_ frame: [UInt8], _ kind: Reference.Kind, isSuper: Bool) -> Arrival {
        let l3 = Reference.l3(frame), place = Reference.transport(frame, at: l3)
        let start = UInt16(place.l4), offset = UInt16(place.proto == 17 ? 6 : 16)
        var seeded = frame
        Reference.put(&seeded, place.l4 + Int(offset), place.pseudo)
        let completed = ContractTraffic.ones(frame, place.l4 + Int(offset))
        if isSuper {
            let state = ChecksumState.known(start: start, offset: offset)
                .superframe(kind == .tcp4 ? .tcp4 : .tcp6, segmentSize: UInt16.random(in: 100...290, using: &random), congestion: false)
            return Arrival(finished: completed, frame: seeded, state: state, description: "superframe")
        }
        // Trailing bytes are no part of a known checksum, but of an opaque one.
        let hasPadding = frame.count > place.l4 + place.length
        switch Int.random(in: 0..<10, using: &random) {
        case 0 where !hasPadding: return Arrival(finished: completed, frame: seeded, state: .opaque(start: start, offset: offset), description: "opaque")
        case 1, 2: return Arrival(finished: frame, frame: frame, state: .unnecessary(start: start, offset: offset), description: "verified")
        case 3: return Arrival(finished: frame, frame: frame, state: .none, description: "right")
        case 4:
            var wrong = frame
            if chance(2), kind == .udp4 { Reference.put(&wrong, place.l4 + 6, 0) } else { wrong[place.l4 + Int(offset)] ^= 0x40 }
            return Arrival(finished: wrong, frame: wrong, state: chance(2) ? .bad : .none, description: "wrong")
        default: return Arrival(finished: completed, frame: seeded, state: .known(start: start, offset: offset), description: "known")
        }
    }
}

extension ContractProgram {
    /// Numbers that make the field, or what is computed from it, come out special: as the wire has them.
    var magic: [UInt16] {
        var found: [UInt16] = []
        func look(_ block: Block) {
            switch block {
            case .port(_, let value, _), .portUnlessZero(let value, _): found.append(value.byteSwapped)
            case .arms(let constant, _, _, _, _, _): found.append(constant.byteSwapped)
            case .half(let blocks): blocks.forEach(look)
            default: break
            }
        }
        for bodies in [bodies, next ?? [:]] { for kind in Kind.allCases { bodies[kind]?.blocks.forEach(look) } }
        return found
    }
}
