/// What a register or a stack slot may hold, in all runs that come by.
struct AbstractValue: Equatable {
    struct Kinds: OptionSet, Hashable {
        let rawValue: UInt8
        static let number = Kinds(rawValue: 1), context = Kinds(rawValue: 2), packet = Kinds(rawValue: 4)
        static let packetEnd = Kinds(rawValue: 8), metadata = Kinds(rawValue: 16), stack = Kinds(rawValue: 32)
        static let mapValue = Kinds(rawValue: 64), map = Kinds(rawValue: 128)

        /// The one kind of pointer there is, a null beside it allowed.
        var pointer: Kinds { subtracting(.number) }
    }

    /// Farther than any packet, frame or map value reaches: an offset beyond is "anywhere".
    static let far: Int64 = 1 << 31
    static let anyFrame: UInt8 = 0xff
    /// Maps from the 63rd on share a bit.
    static let lastMap = 63

    var kinds: Kinds
    var number = Scalar.unknown
    /// Pointers: where they point to, in bytes. Packet: from the arrival's first byte. Stack: from the frame's top.
    var lower: Int64 = 0
    var upper: Int64 = 0
    /// Packet pointers: the offset is this and four times the IPv4 header's length field. A known L3 header has one.
    var beyondHeader: Int64?
    /// Packet pointers: pointers of one variable part share `anchor` and differ by `delta`; 0 is the packet's start.
    var anchor: UInt32 = 0
    var delta: Int64 = 0
    var frame: UInt8 = 0
    /// Map pointers and pointers to values: which maps, a bit each.
    var maps: UInt64 = 0
    /// Numbers: which byte of the arrival stands in each byte of the register, or one of `Origin`'s.
    var origins = Origin.none
    /// Numbers: one byte of the arrival, masked and shifted, is the whole number.
    var part: BytePart?
    /// Numbers: such a number and a constant more.
    var partSum: PartSum?
    /// Numbers: the lower half of the address of this byte of the arrival.
    var addressLow: Int64?
    /// Numbers: the place of this function of the program, for helpers that call it.
    var function: Int?
    /// Which reads of the checksum field it derives from, a bit each, and in which of its bytes. A byte loses its taint
    /// only by an instruction that would set it to the same in any run (a mask, a shift, a truncation): that this state
    /// knows its value says nothing about the states kept apart from it.
    var labels: UInt64 = 0
    var tainted: UInt8 = 0
    /// It derives from the field here and from nothing on another way, where it may be zero; or only a branch on the field
    /// makes it differ. Copies, masks, shifts and the like keep that zero; any other arithmetic makes a number of it.
    var mayBeOwnZero = false

    static func number(_ scalar: Scalar) -> AbstractValue { AbstractValue(kinds: .number, number: scalar) }
    static let unknown = number(.unknown)
    /// Anything at all; following it as a pointer may lead anywhere.
    static func constant(_ value: UInt64) -> AbstractValue { number(Scalar(value)) }

    static func pointer(_ kind: Kinds, at offset: Int64 = 0) -> AbstractValue {
        AbstractValue(kinds: kind, number: .zero, lower: offset, upper: offset, delta: offset)
    }

    var isNumber: Bool { kinds == .number }
    var isTainted: Bool { labels != 0 && tainted != 0 }
    /// Labels of its taint; none where no byte is tainted.
    var taint: UInt64 { tainted == 0 ? 0 : labels }

    mutating func taint(_ labels: UInt64, bytes: UInt8 = 0xff) {
        guard labels != 0, bytes != 0 else { return }
        self.labels = taint | labels
        tainted |= bytes
    }

    /// A branch on the field decides whether this instruction runs: the number differs with the field, though it may be one
    /// that derives from nothing.
    mutating func taint(control labels: UInt64) {
        guard labels != 0 else { return }
        if taint == 0 && mayBeZero { mayBeOwnZero = true }
        taint(labels)
    }

    func isOwnZero(_ size: Int) -> Bool { mayBeOwnZero && low(bytes: size).number.min == 0 }

    private var mayBeZero: Bool { kinds.contains(.number) && number.min == 0 }

    /// Whether a byte of its lowest `size` may be zero.
    func mayHoldZero(_ size: Int) -> Bool {
        !isNumber || (0..<size).contains { number.value >> UInt64($0 * 8) & 0xff == 0 }
    }

    func joined(_ other: AbstractValue) -> AbstractValue {
        if self == other { return self }
        var result = self
        result.kinds = kinds.union(other.kinds)
        if kinds.contains(.number) && other.kinds.contains(.number) { result.number = number.joined(other.number) }
        else if other.kinds.contains(.number) { result.number = other.number }
        if !other.kinds.pointer.isEmpty {
            if kinds.pointer.isEmpty {
                result.adoptPointer(other)
            } else if kinds.pointer == other.kinds.pointer {
                result.lower = min(lower, other.lower)
                result.upper = max(upper, other.upper)
                if beyondHeader != other.beyondHeader { result.beyondHeader = nil }
                if anchor != other.anchor || delta != other.delta { result.loseAnchor() }
                if frame != other.frame { result.frame = AbstractValue.anyFrame }
                result.maps |= other.maps
            } else {
                result.loseOffset()
                result.frame = AbstractValue.anyFrame
                result.maps |= other.maps
            }
        }
        result.origins.replace(with: Origin.unknown, where: origins .!= other.origins)
        if part != other.part { result.part = nil }
        if partSum != other.partSum { result.partSum = nil }
        if addressLow != other.addressLow { result.addressLow = nil }
        if function != other.function { result.function = nil }
        if taint != 0 && other.taint == 0 { result.mayBeOwnZero = mayBeOwnZero || other.mayBeZero }
        else if taint == 0 && other.taint != 0 { result.mayBeOwnZero = other.mayBeOwnZero || mayBeZero }
        else { result.mayBeOwnZero = mayBeOwnZero || other.mayBeOwnZero }
        result.labels = taint | other.taint
        result.tainted |= other.tainted
        return result
    }

    func widened(from old: AbstractValue) -> AbstractValue {
        var result = self
        if kinds.contains(.number) && old.kinds.contains(.number) { result.number = number.widened(from: old.number) }
        if lower < old.lower { result.lower = -AbstractValue.far }
        if upper > old.upper { result.upper = AbstractValue.far }
        return result
    }

    private mutating func adoptPointer(_ other: AbstractValue) {
        (lower, upper, beyondHeader, anchor, delta) = (other.lower, other.upper, other.beyondHeader, other.anchor, other.delta)
        (frame, maps) = (other.frame, other.maps)
    }

    mutating func loseAnchor() {
        anchor = .max
        delta = 0
    }

    mutating func loseOffset() {
        lower = -AbstractValue.far
        upper = AbstractValue.far
        beyondHeader = nil
        loseAnchor()
    }

    /// Moves a pointer by a constant.
    mutating func move(by distance: Int64) {
        guard abs(distance) < AbstractValue.far else { return loseOffset() }
        lower = max(lower + distance, -AbstractValue.far)
        upper = min(upper + distance, AbstractValue.far)
        beyondHeader = beyondHeader.map { $0 + distance }
        if anchor != .max { delta += distance }
        if abs(delta) > AbstractValue.far { loseAnchor() }
    }
}

/// Codes for bytes of a register, beside the arrival's byte numbers from 0.
enum Origin {
    static let unknown: Int16 = -1, udpFieldHigh: Int16 = -2, udpFieldLow: Int16 = -3
    static let none = SIMD8<Int16>(repeating: unknown)
    /// Origins are followed this far into a packet: link layer and first IP header.
    static let limit: Int64 = 256
}

struct PartSum: Equatable {
    var part: BytePart
    var more: Int64
}

/// The number `(byte & mask) << shift` (a negative shift goes right).
struct BytePart: Equatable {
    var position: Int16
    var mask: UInt8
    var shift: Int8

    func masked(_ constant: UInt64) -> BytePart {
        let kept = shift >= 0 ? constant >> UInt64(shift) : constant << UInt64(-shift)
        return BytePart(position: position, mask: mask & UInt8(truncatingIfNeeded: kept), shift: shift)
    }

    func shifted(_ n: Int) -> BytePart? {
        let total = Int(shift) + n
        guard total <= 16, total >= -7 else { return nil }
        let lost: UInt8 = total < 0 ? .max << UInt8(-total) : .max
        return BytePart(position: position, mask: mask & lost, shift: Int8(total))
    }

    /// What the masked byte is where the number is `constant`; nil: it cannot be.
    func byte(where constant: UInt64) -> UInt8? {
        let raw = shift >= 0 ? constant >> UInt64(shift) : constant << UInt64(-shift)
        guard raw <= 0xff, UInt8(raw) & ~mask == 0 else { return nil }
        return UInt8(raw)
    }
}
