/// What is known of a 64-bit number: bits (as the kernel's tnum: `mask` is unknown) and an unsigned range.
struct Scalar: Equatable {
    private(set) var value: UInt64
    private(set) var mask: UInt64
    private(set) var min: UInt64
    private(set) var max: UInt64

    static let unknown = Scalar(value: 0, mask: .max, min: 0, max: .max)
    static let zero = Scalar(0)

    init(_ constant: UInt64) { self.init(value: constant, mask: 0, min: constant, max: constant) }

    /// Any number of so many bits.
    init(bits: Int) {
        let all: UInt64 = bits >= 64 ? .max : (1 << UInt64(bits)) - 1
        self.init(value: 0, mask: all, min: 0, max: all)
    }

    init(range: ClosedRange<UInt64>) {
        self.init(value: 0, mask: .max, min: range.lowerBound, max: range.upperBound)
        settle()
    }

    private init(value: UInt64, mask: UInt64, min: UInt64 = 0, max: UInt64 = .max) {
        self.value = value
        self.mask = mask
        self.min = min
        self.max = max
    }

    private static func bits(_ value: UInt64, _ mask: UInt64) -> Scalar {
        var result = Scalar(value: value & ~mask, mask: mask)
        result.settle()
        return result
    }

    var constant: UInt64? { mask == 0 ? value : nil }
    var isZero: Bool { mask == 0 && value == 0 }
    /// The largest number its bits allow.
    var ceiling: UInt64 { Swift.min(max, value | mask) }
    /// Its range as a signed number, if it does not wrap.
    var signed: ClosedRange<Int64>? {
        let (low, high) = (Int64(bitPattern: min), Int64(bitPattern: max))
        return low <= high ? low...high : nil
    }
    /// Whether byte `index` is the same in every run.
    func isKnown(byte index: Int) -> Bool { mask >> UInt64(index * 8) & 0xff == 0 }
    func isZero(byte index: Int) -> Bool { (mask | value) >> UInt64(index * 8) & 0xff == 0 }

    /// Bits and range tell on each other. A contradiction (code no run reaches) keeps the bits.
    private mutating func settle() {
        min = Swift.max(min, value)
        max = Swift.min(max, value | mask)
        guard min <= max else {
            min = value
            max = value | mask
            return
        }
        let differing = min ^ max
        let unknown: UInt64 = differing == 0 ? 0 : .max >> UInt64(differing.leadingZeroBitCount)
        let known = ~unknown & mask      // newly known bits: both bounds agree on them
        value |= min & known
        mask &= unknown
    }

    func joined(_ other: Scalar) -> Scalar {
        let unknown = mask | other.mask | (value ^ other.value)
        var result = Scalar(value: value & ~unknown, mask: unknown, min: Swift.min(min, other.min), max: Swift.max(max, other.max))
        result.settle()
        return result
    }

    /// What repeats itself goes to the next power of two: a loop's counter settles in few rounds.
    func widened(from old: Scalar) -> Scalar {
        var result = self
        if min < old.min { result.min = 0 }
        if max > old.max { result.max = max == 0 ? 0 : .max >> UInt64(max.leadingZeroBitCount) }
        if max > old.max, max > 1 << 16 { result.max = .max }
        result.mask |= result.max == 0 ? 0 : .max >> UInt64(result.max.leadingZeroBitCount)
        result.value &= ~result.mask
        result.min = Swift.max(result.min, result.value)
        return result
    }

    /// The part inside `range`; nil: there is none.
    func limited(_ range: ClosedRange<UInt64>) -> Scalar? {
        let low = Swift.max(min, range.lowerBound), high = Swift.min(max, range.upperBound)
        guard low <= high else { return nil }
        var result = self
        result.min = low
        result.max = high
        result.settle()
        return result
    }

    /// The part without `constant`; nil: there is none. Only an end of the range can be cut off.
    func without(_ constant: UInt64) -> Scalar? {
        if self.constant == constant { return nil }
        var result = self
        if min == constant { result.min &+= 1 }
        if max == constant { result.max &-= 1 }
        result.settle()
        return result
    }

    var low32: Scalar {
        if max <= 0xffff_ffff { return self }
        return .bits(value & 0xffff_ffff, mask & 0xffff_ffff)
    }

    /// The low `bytes` bytes.
    func low(bytes: Int) -> Scalar {
        let all: UInt64 = bytes >= 8 ? .max : (1 << UInt64(bytes * 8)) - 1
        return max <= all ? self : .bits(value & all, mask & all)
    }

    static func + (a: Scalar, b: Scalar) -> Scalar {
        let sums = (a.value &+ a.mask) &+ (b.value &+ b.mask), values = a.value &+ b.value
        var result = Scalar.bits(values, (sums ^ values) | a.mask | b.mask)
        let low = a.min.addingReportingOverflow(b.min), high = a.max.addingReportingOverflow(b.max)
        if !low.overflow && !high.overflow {
            result.min = low.partialValue
            result.max = high.partialValue
            result.settle()
        }
        return result
    }

    static func - (a: Scalar, b: Scalar) -> Scalar {
        let values = a.value &- b.value
        var result = Scalar.bits(values, ((values &+ a.mask) ^ (values &- b.mask)) | a.mask | b.mask)
        if a.min >= b.max {
            result.min = a.min - b.max
            result.max = a.max - b.min
            result.settle()
        }
        return result
    }

    static func & (a: Scalar, b: Scalar) -> Scalar {
        let ones = a.value & b.value, possible = (a.value | a.mask) & (b.value | b.mask)
        var result = Scalar.bits(ones, possible & ~ones)
        result.max = Swift.min(result.max, a.max, b.max)
        result.settle()
        return result
    }

    static func | (a: Scalar, b: Scalar) -> Scalar {
        let ones = a.value | b.value
        var result = Scalar.bits(ones, (a.mask | b.mask) & ~ones)
        result.min = Swift.max(result.min, a.min, b.min)
        result.settle()
        return result
    }

    static func ^ (a: Scalar, b: Scalar) -> Scalar { .bits(a.value ^ b.value, a.mask | b.mask) }

    static func * (a: Scalar, b: Scalar) -> Scalar {
        if let x = a.constant, let y = b.constant { return Scalar(x &* y) }
        let high = a.max.multipliedReportingOverflow(by: b.max)
        guard !high.overflow else { return .unknown }
        let zeros = UInt64(Swift.min(63, (a.value | a.mask).trailingZeroBitCount + (b.value | b.mask).trailingZeroBitCount))
        var result = Scalar(value: 0, mask: .max << zeros, min: a.min &* b.min, max: high.partialValue)
        result.settle()
        return result
    }

    func shiftedLeft(_ n: UInt64) -> Scalar {
        guard n > 0 else { return self }
        var result = Scalar.bits(value << n, mask << n)
        if max <= .max >> n {
            result.min = min << n
            result.max = max << n
            result.settle()
        }
        return result
    }

    func shiftedRight(_ n: UInt64) -> Scalar {
        var result = Scalar.bits(value >> n, mask >> n)
        result.min = min >> n
        result.max = max >> n
        result.settle()
        return result
    }

    func divided(by b: Scalar) -> Scalar {
        guard let divisor = b.constant else { return Scalar(range: 0...max) }
        return divisor == 0 ? .zero : Scalar(range: (min / divisor)...(max / divisor))
    }

    func remainder(by b: Scalar) -> Scalar {
        guard let divisor = b.constant, divisor != 0 else { return Scalar(range: 0...max) }
        return max < divisor ? self : Scalar(range: 0...(divisor - 1))
    }

    func swapped(bytes: Int) -> Scalar {
        let shift = UInt64(64 - bytes * 8)
        return .bits(value.byteSwapped >> shift, mask.byteSwapped >> shift)
    }

    /// Sign extension from `bits`: nothing but the plain case is worth the trouble.
    func extended(bits: UInt64) -> Scalar {
        let half: UInt64 = 1 << (bits - 1)
        if max < half { return self }
        if let constant {
            return Scalar(UInt64(bitPattern: Int64(bitPattern: constant << (64 - bits)) >> Int64(64 - bits)))
        }
        return .unknown
    }
}
