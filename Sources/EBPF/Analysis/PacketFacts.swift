/// What the branches taken so far say about the arrival's headers, and where its checksum field can be.
///
/// **The rule.** The field of a packet that needs completing is a TCP or UDP checksum the parser reached (contract
/// section 2, *known*; opaque packets are completed before the program where it can write, and watched at every read
/// where it cannot). So
///
/// - L3 stands behind 14 bytes of Ethernet and some VLAN tags of four; the EtherTypes compared so far say how many
///   there are at least, and whether an IP header follows;
/// - the L4 header stands behind an IPv4 header of 4 * ihl bytes, or an IPv6 header of 40 and extension headers
///   of eights (not AH's fours: such a checksum is opaque); offset 16 for TCP, 6 for UDP: what the protocol byte was compared with;
/// - a pointer that is exactly L3 + constant, or L3 + constant + 4 * ihl of that header, hits the field at one constant
///   and no other;
/// - any other pointer may hit it wherever its range of offsets meets a place the field can be at. These places keep a
///   step of four: UDP's first byte is 0 modulo 4 and not below 40, TCP's is 2 modulo 4 and not below 50.
///
/// Facts come from comparisons of bytes as they arrived: a load that may see bytes the program wrote yields none.
/// A wrong belief of the *program* (no options, no tags) is therefore never believed here.
struct PacketFacts: Equatable, Hashable {
    enum Family: UInt8 { case unknown, ipv4, ipv6, other }

    /// VLAN tags that are certainly there.
    private(set) var tags = 0
    /// Their EtherTypes, 16 bits each from the lowest; 0: one or the other. A program that parses a second time, or the
    /// next one, then takes the same path.
    private(set) var tagTypes: UInt64 = 0
    private(set) var family = Family.unknown
    /// IPv4 protocol, or IPv6's first next header.
    private(set) var proto: UInt8?
    /// The length field as the program checked it; any packet, not only those with a checksum.
    private(set) var ihl: ClosedRange<UInt8> = 0...15
    private(set) var version: UInt8?

    static let tagsMax = 4

    /// Where the EtherType is that is not known yet.
    var etherType: Int { 12 + 4 * tags }
    var l3: Int64? { family == .ipv4 || family == .ipv6 ? Int64(14 + 4 * tags) : nil }
    private var protocolByte: Int64? { l3.map { $0 + (family == .ipv4 ? 9 : 6) } }

    /// What decides where the field is: states that agree here are joined, others are kept apart.
    struct Key: Hashable {
        var tags = 0
        var family = Family.unknown
        var proto: UInt8?
        var headerWords: UInt8?
    }
    var key: Key { Key(tags: tags, family: family, proto: proto, headerWords: ihl.count == 1 ? ihl.lowerBound : nil) }

    func joined(_ other: PacketFacts) -> PacketFacts {
        if self == other { return self }
        guard family == other.family, tags == other.tags else {
            var result = PacketFacts()
            result.tags = min(tags, other.tags)
            result.tagTypes = commonTypes(other, result.tags)
            return result
        }
        var result = self
        result.tagTypes = commonTypes(other, tags)
        if proto != other.proto { result.proto = nil }
        if version != other.version { result.version = nil }
        result.ihl = min(ihl.lowerBound, other.ihl.lowerBound)...max(ihl.upperBound, other.ihl.upperBound)
        return result
    }

    private func type(ofTag tag: Int) -> UInt16 { UInt16(truncatingIfNeeded: tagTypes >> UInt64(16 * tag)) }

    private func commonTypes(_ other: PacketFacts, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { type(ofTag: $1) == other.type(ofTag: $1) ? $0 | UInt64(type(ofTag: $1)) << UInt64(16 * $1) : $0 }
    }

    // MARK: Learning

    /// A byte of the arrival, where the facts say what it is.
    func byte(_ position: Int) -> UInt8? {
        if let protocolByte, Int64(position) == protocolByte { return proto }
        let tag = (position - 12) / 4
        if position >= 12, tag < tags, type(ofTag: tag) != 0, position % 4 < 2 {
            return position % 4 == 0 ? UInt8(type(ofTag: tag) >> 8) : UInt8(type(ofTag: tag) & 0xff)
        }
        switch (family, position - etherType) {
        case (.ipv4, 0): return 0x08
        case (.ipv4, 1): return 0x00
        case (.ipv6, 0): return 0x86
        case (.ipv6, 1): return 0xdd
        default: return nil
        }
    }

    /// Whether bytes like these contradict the tags that are there.
    func rulesOut(_ bytes: [(position: Int, value: UInt8)]) -> Bool {
        func value(_ position: Int) -> UInt8? { bytes.first { $0.position == position }?.value }
        for tag in 0..<tags {
            guard let high = value(12 + 4 * tag), let low = value(13 + 4 * tag) else { continue }
            if !PacketFacts.isTag(UInt16(high) << 8 | UInt16(low)) { return true }
        }
        return bytes.contains { byte($0.position) ?? $0.value != $0.value }
    }

    private static func isTag(_ type: UInt16) -> Bool { type == 0x8100 || type == 0x88a8 || type == 0x9100 }

    /// Byte `position` of the arrival is `value`, for each pair.
    mutating func learn(_ bytes: [(position: Int, value: UInt8)]) {
        func value(_ position: Int) -> UInt8? { bytes.first { $0.position == position }?.value }
        if family == .unknown, let high = value(etherType), let low = value(etherType + 1) {
            switch UInt16(high) << 8 | UInt16(low) {
            case 0x0800: family = .ipv4
            case 0x86dd: family = .ipv6
            case let type where PacketFacts.isTag(type):
                guard tags < PacketFacts.tagsMax else { break }
                tagTypes |= UInt64(type) << UInt64(16 * tags)
                tags += 1
            default: family = .other
            }
        }
        if let protocolByte, let value = value(Int(protocolByte)) { proto = value }
        if let l3, let first = value(Int(l3)) { learn(BytePart(position: Int16(l3), mask: 0xff, shift: 0), is: first) }
    }

    /// The masked byte is `value`.
    mutating func learn(_ part: BytePart, is value: UInt8) {
        if let protocolByte, Int64(part.position) == protocolByte, part.mask == 0xff { proto = value }
        guard family == .ipv4, Int64(part.position) == l3 else { return }
        if part.mask & 0x0f == 0x0f { ihl = (value & 0x0f)...(value & 0x0f) }
        if part.mask & 0xf0 == 0xf0 { version = value >> 4 }
    }

    /// The number `part` makes lies in `range`.
    mutating func learn(_ part: BytePart, in range: ClosedRange<UInt64>) {
        guard family == .ipv4, Int64(part.position) == l3, part.mask == 0x0f, part.shift >= 0 else { return }
        let step: UInt64 = 1 << UInt64(part.shift)
        let low = min(15, (range.lowerBound + min(step - 1, .max - range.lowerBound)) / step), high = min(15, range.upperBound / step)
        let lower = max(UInt8(low), ihl.lowerBound), upper = min(UInt8(high), ihl.upperBound)
        if lower <= upper { ihl = lower...upper }
    }

    /// What the facts say about a number made of one byte, if anything.
    func number(_ part: BytePart) -> Scalar? {
        if let protocolByte, Int64(part.position) == protocolByte, let proto {
            return part.shift >= 0 ? Scalar(UInt64(proto & part.mask) << UInt64(part.shift)) : Scalar(UInt64(proto & part.mask) >> UInt64(-part.shift))
        }
        guard family == .ipv4, Int64(part.position) == l3, part.shift >= 0, part.mask & 0x0f == 0x0f else { return nil }
        guard part.mask & 0xf0 == 0 || version != nil else { return nil }
        let high = UInt64((version ?? 0) << 4 & part.mask)
        let shift = UInt64(part.shift)
        return Scalar(range: ((high | UInt64(ihl.lowerBound)) << shift)...((high | UInt64(ihl.upperBound)) << shift))
    }

    /// Whether a number is four times the IPv4 header's length field, in packets that need completing: their version
    /// is 4, so the upper half of the byte adds nothing but that.
    func isHeaderLength(_ part: BytePart) -> Bool {
        family == .ipv4 && Int64(part.position) == l3 && part.shift == 2 && part.mask & 0x0f == 0x0f && part.mask & 0x40 == 0
    }

    // MARK: Where the field is

    enum Overlap: Equatable {
        case none
        /// The field's first byte is byte `at` of the access, which may be -1 (only its second is in it).
        case exact(at: Int, isUDP: Bool)
        /// These bytes of the access may belong to it (the first eight; a longer access: all).
        case possible(bytes: UInt8)

        /// It is not certainly TCP's, nor none.
        var mayBeUDP: Bool {
            switch self {
            case .none: false
            case .exact(_, let isUDP): isUDP
            case .possible: true
            }
        }

        /// The access is inside the field.
        func isField(_ size: Int) -> Bool {
            if case .exact(let first, _) = self { first <= 0 && size <= first + 2 } else { false }
        }
    }

    /// Where an access of `size` bytes through `pointer` meets the field.
    func overlap(_ pointer: AbstractValue, size: Int64) -> Overlap {
        if family == .other { return .none }
        let isExact = pointer.lower == pointer.upper
        guard let l3 else { return scattered(pointer, size, isExact) }
        guard let offsets = fieldOffsets else { return .none }
        if family == .ipv4, ihl.count > 1 {
            if let beyond = pointer.beyondHeader { return single(beyond - l3, size, offsets) }
            let words = Int64(max(ihl.lowerBound, 5))...Int64(max(ihl.upperBound, 5))
            return union(offsets.flatMap { offset in words.map { l3 + 4 * $0 + offset } }, pointer, size, isExact)
        }
        if family == .ipv4 {
            let header = 4 * Int64(ihl.lowerBound)
            if let beyond = pointer.beyondHeader { return single(beyond - l3, size, offsets) }
            return isExact ? single(pointer.lower - l3 - header, size, offsets)
                : union(offsets.map { l3 + header + $0 }, pointer, size, false)
        }
        if proto == nil || isExtended { return behindExtensions(pointer, size, isExact, from: l3 + (isExtended ? 48 : 40)) }
        return isExact ? single(pointer.lower - l3 - 40, size, offsets) : union(offsets.map { l3 + 40 + $0 }, pointer, size, false)
    }

    /// The next header is an extension header behind which the parser knows a checksum.
    private var isExtended: Bool { family == .ipv6 && (proto == 0 || proto == 43 || proto == 60) }

    /// Extension headers of eights from `first` on, any number of them: UDP's field is at 6 modulo 8, TCP's at 0.
    private func behindExtensions(_ pointer: AbstractValue, _ size: Int64, _ isExact: Bool, from first: Int64) -> Overlap {
        guard pointer.upper + size > first + 6 else { return .none }
        guard isExact, size <= 8 else { return .possible(bytes: 0xff) }
        var bytes: UInt8 = 0
        for index in 0..<size {
            let distance = pointer.lower + index - first
            if distance >= 6 && distance % 8 >= 6 || distance >= 16 && distance % 8 < 2 { bytes |= 1 << UInt8(index) }
        }
        return bytes == 0 ? .none : .possible(bytes: bytes)
    }

    /// Offsets of the field in the L4 header; nil: the packet has none that is known.
    private var fieldOffsets: [Int64]? {
        switch proto {
        case 6: [16]
        case 17: [6]
        case nil: [6, 16]
        case 0, 43, 60: family == .ipv6 ? [6, 16] : nil
        default: nil
        }
    }

    /// An access at one distance from the L4 header.
    private func single(_ distance: Int64, _ size: Int64, _ offsets: [Int64]) -> Overlap {
        let hits = offsets.filter { $0 + 1 >= distance && $0 < distance + size }
        if hits.isEmpty { return .none }
        guard hits.count == 1, offsets.count == 1 else {
            return .possible(bytes: hits.reduce(0) { $0 | PacketFacts.bytes($1 - distance, size) })
        }
        return .exact(at: Int(hits[0] - distance), isUDP: hits[0] == 6)
    }

    private func union(_ places: [Int64], _ pointer: AbstractValue, _ size: Int64, _ isExact: Bool) -> Overlap {
        let hits = places.filter { $0 + 1 >= pointer.lower && $0 < pointer.upper + size }
        if hits.isEmpty { return .none }
        return .possible(bytes: isExact ? hits.reduce(0) { $0 | PacketFacts.bytes($1 - pointer.lower, size) } : 0xff)
    }

    /// L3 is not known: every place the rule leaves.
    private func scattered(_ pointer: AbstractValue, _ size: Int64, _ isExact: Bool) -> Overlap {
        let udp = Int64(40 + 4 * tags), tcp = udp + 10
        guard pointer.upper + size > udp else { return .none }
        guard isExact, size <= 8 else { return .possible(bytes: 0xff) }
        var bytes: UInt8 = 0
        for index in 0..<size {
            let at = pointer.lower + index
            if at >= udp, at % 4 < 2 || at >= tcp { bytes |= 1 << UInt8(index) }
        }
        return bytes == 0 ? .none : .possible(bytes: bytes)
    }

    /// The two bytes from `at` of an access, as far as they are in it.
    private static func bytes(_ at: Int64, _ size: Int64) -> UInt8 {
        guard size <= 8 else { return 0xff }
        return (0..<size).reduce(0) { $1 == at || $1 == at + 1 ? $0 | 1 << UInt8($1) : $0 }
    }
}
