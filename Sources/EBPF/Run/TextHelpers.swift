internal import CBPF

/// Helpers about text: printing for people, and numbers out of strings.
extension Machine {
    @inline(__always)
    func textHelper<T: Trust>(_: T.Type, _ helper: Helper, _ r1: UInt64, _ r2: UInt64, _ r3: UInt64, _ r4: UInt64, _ r5: UInt64) -> UInt64? {
        switch helper {
        case .tracePrintk:
            guard r2 <= 512, mayPass(T.self, r1, Int(r2)) else { return nil }
            var values: (UInt64, UInt64, UInt64) = (r3, r4, r5)
            return unsafe withUnsafeBytes(of: &values) { print(T.self, r1, r2, UInt64(UInt(bitPattern: $0.baseAddress)), 3) }
        case .traceVprintk:
            // At most 12 values, as in the kernel.
            guard r2 <= 512, mayPass(T.self, r1, Int(r2)), r4 <= 96, mayPass(T.self, r3, Int(r4)) else { return nil }
            if r4 & 7 != 0 { return Machine.word(-ErrorNumber.invalid) }
            return print(T.self, r1, r2, r3, r4 / 8)
        case .snprintf:
            guard r5 <= 96, mayPass(T.self, r4, Int(r5)), r2 <= UInt64(UInt32.max), mayPass(T.self, r1, Int(r2), writes: true) else { return nil }
            if r5 & 7 != 0 { return Machine.word(-ErrorNumber.invalid) }
            return snprintf(T.self, r1, r2, r3, r4, r5 / 8)
        case .stringCompare:
            // The second string is a constant with an end, of which the verifier knows.
            guard r2 <= UInt64(UInt32.max), mayPass(T.self, r1, Int(r2)) else { return nil }
            return compare(T.self, r1, r2, r3)
        default:
            guard r2 <= UInt64(UInt32.max), mayPass(T.self, r1, Int(r2)), mayPass(T.self, r4, 8, writes: true) else { return nil }
            return Machine.word(Helpers.number(r1, r2, r3, r4, isSigned: helper == .stringToLong))
        }
    }

    @inline(__always)
    private func print<T: Trust>(_: T.Type, _ format: UInt64, _ size: UInt64, _ values: UInt64, _ count: UInt64) -> UInt64 {
        Machine.word(Int64(apus_print(format, Int(size), values, Int(count), T.isChecked ? 1 : 0)))
    }

    @inline(__always)
    private func snprintf<T: Trust>(_: T.Type, _ to: UInt64, _ room: UInt64, _ format: UInt64, _ values: UInt64, _ count: UInt64) -> UInt64? {
        var size = 0
        if T.isChecked {
            // Up to its end the format must be readable.
            while size < 512, mayTouch(format &+ UInt64(size), 1, writes: false) {
                size &+= 1
                if Memory.load8(format &+ UInt64(size &- 1)) == 0 { break }
            }
            if size == 0 { return nil }
        } else {
            size = 4096
        }
        let written = apus_print_to(to, Int(room), format, size, values, Int(count), T.isChecked ? 1 : 0)
        return Machine.word(written < 0 ? Int64(written) : Int64(written) &+ 1)
    }

    @inline(__always)
    private func compare<T: Trust>(_: T.Type, _ a: UInt64, _ size: UInt64, _ b: UInt64) -> UInt64? {
        var at: UInt64 = 0
        while at < size {
            guard mayRead(T.self, b &+ at, 1) else { return nil }
            let (x, y) = (Memory.load8(a &+ at), Memory.load8(b &+ at))
            if x != y { return Machine.word(x < y ? -1 : 1) }
            if x == 0 { return 0 }
            at &+= 1
        }
        return 0
    }
}

extension Helpers {
    /// `bpf_strtol` and `bpf_strtoul`: how many characters were used, or an error; the number at `result`.
    @_noLocks
    static func number(_ text: UInt64, _ size: UInt64, _ base: UInt64, _ result: UInt64, isSigned: Bool) -> Int64 {
        Memory.store64(result, 0)
        guard size > 0, base == 0 || base == 8 || base == 10 || base == 16 else { return -ErrorNumber.invalid }
        let end = min(size, 63)     // the kernel copies as many
        var at: UInt64 = 0
        func character(_ at: UInt64) -> UInt8 { at < end ? Memory.load8(text &+ at) : 0 }
        while isSpace(character(at)) { at &+= 1 }
        let isNegative = character(at) == 0x2d
        if isNegative && !isSigned { return -ErrorNumber.invalid }
        if isNegative { at &+= 1 }
        var radix = base
        if character(at) == 0x30 {
            let isHex = character(at &+ 1) | 0x20 == 0x78 && digit(character(at &+ 2)) < 16
            if base == 0 { radix = isHex ? 16 : 8 }
            if radix == 16 && character(at &+ 1) | 0x20 == 0x78 { at &+= 2 }
        } else if base == 0 {
            radix = 10
        }
        let start = at
        var value: UInt64 = 0, isTooLarge = false
        while digit(character(at)) < radix {
            let (product, high) = value.multipliedReportingOverflow(by: radix)
            let (sum, carry) = product.addingReportingOverflow(digit(character(at)))
            value = sum
            if high || carry { isTooLarge = true }
            at &+= 1
        }
        if isTooLarge { return -ErrorNumber.range }
        if at == start { return -ErrorNumber.invalid }
        if isSigned {
            if isNegative { value = 0 &- value }
            if (isNegative && Int64(bitPattern: value) > 0) || (!isNegative && Int64(bitPattern: value) < 0) { return -ErrorNumber.range }
        }
        Memory.store64(result, value)
        return Int64(at)
    }

    @_noLocks @inline(__always)
    private static func isSpace(_ c: UInt8) -> Bool { c == 0x20 || c >= 9 && c <= 13 || c == 0xa0 }

    @_noLocks @inline(__always)
    private static func digit(_ c: UInt8) -> UInt64 {
        switch c {
        case 0x30...0x39: UInt64(c &- 0x30)
        case 0x41...0x46: UInt64(c &- 0x41 &+ 10)
        case 0x61...0x66: UInt64(c &- 0x61 &+ 10)
        default: 99
        }
    }

    @_noLocks
    static func time(_ helper: Helper) -> UInt64 {
        switch helper {
        case .ktimeBoot: apus_ktime_ns(APUS_CLOCK_BOOT)
        case .ktimeCoarse: apus_ktime_ns(APUS_CLOCK_COARSE)
        case .ktimeTAI: apus_ktime_ns(APUS_CLOCK_TAI)
        // HZ is the kernel's choice and no program may know it; 250 is Debian's. jiffies start five minutes before zero.
        case .jiffies: apus_ktime_ns(APUS_CLOCK_MONOTONIC) / 4_000_000 &+ (1 << 32 &- 75_000)
        default: 0      // one NUMA node until memory says otherwise
        }
    }
}
