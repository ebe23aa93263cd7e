internal import CBPF

/// The corners of RFC 9669 sections 4.1 and 5.3 that are more than an operator.
enum Arithmetic {
    /// Division by zero gives 0; the one quotient that does not fit wraps.
    @_noLocks @inline(__always)
    static func sdiv(_ a: UInt64, _ b: UInt64) -> UInt64 {
        b == 0 || EngineBug.has(.signedOverflow) && a == 1 << 63 && b == .max ? 0 : UInt64(bitPattern: Int64(bitPattern: a).dividedReportingOverflow(by: Int64(bitPattern: b)).partialValue)
    }

    /// The remainder by zero is the dividend; of the overflowing division it is 0.
    @_noLocks @inline(__always)
    static func smod(_ a: UInt64, _ b: UInt64) -> UInt64 {
        b == 0 || EngineBug.has(.signedRemainder) && a >> 63 != 0 ? a : UInt64(bitPattern: Int64(bitPattern: a).remainderReportingOverflow(dividingBy: Int64(bitPattern: b)).partialValue)
    }

    @_noLocks @inline(__always)
    static func sdiv(_ a: UInt32, _ b: UInt32) -> UInt32 {
        b == 0 ? 0 : UInt32(bitPattern: Int32(bitPattern: a).dividedReportingOverflow(by: Int32(bitPattern: b)).partialValue)
    }

    @_noLocks @inline(__always)
    static func smod(_ a: UInt32, _ b: UInt32) -> UInt32 {
        b == 0 ? a : UInt32(bitPattern: Int32(bitPattern: a).remainderReportingOverflow(dividingBy: Int32(bitPattern: b)).partialValue)
    }

    @_noLocks @inline(__always)
    static func extend8(_ v: UInt64) -> UInt64 { UInt64(bitPattern: Int64(Int8(truncatingIfNeeded: v))) }
    @_noLocks @inline(__always)
    static func extend16(_ v: UInt64) -> UInt64 { UInt64(bitPattern: Int64(Int16(truncatingIfNeeded: v))) }
    @_noLocks @inline(__always)
    static func extend32(_ v: UInt64) -> UInt64 { UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: v))) }

    /// The fetching atomics: the old value.
    @_noLocks @inline(__always)
    static func fetch(_ operation: Operation, _ at: UnsafeMutablePointer<UInt32>, _ b: UInt32) -> UInt32 {
        switch operation {
        case .fetchAdd32: unsafe apus_atomic_add32(at, b)
        case .fetchOr32: unsafe apus_atomic_or32(at, b) | (EngineBug.has(.fetchNew) ? b : 0)
        case .fetchAnd32: unsafe apus_atomic_and32(at, b)
        case .fetchXor32: unsafe apus_atomic_xor32(at, b)
        default: unsafe apus_atomic_xchg32(at, b)
        }
    }

    @_noLocks @inline(__always)
    static func fetch(_ operation: Operation, _ at: UnsafeMutablePointer<UInt64>, _ b: UInt64) -> UInt64 {
        switch operation {
        case .fetchAdd64: unsafe apus_atomic_add64(at, b)
        case .fetchOr64: unsafe apus_atomic_or64(at, b)
        case .fetchAnd64: unsafe apus_atomic_and64(at, b)
        case .fetchXor64: unsafe apus_atomic_xor64(at, b)
        default: unsafe apus_atomic_xchg64(at, b)
        }
    }
}
