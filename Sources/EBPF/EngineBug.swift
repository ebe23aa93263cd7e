internal import CBPF

/// Bugs that a build made with APUS_PLANTED can have at run time, one at a time, so that tests show that the fuzzer would
/// find each. Anywhere else every question folds to `false`.
enum EngineBug: UInt8, CaseIterable, Sendable {
    case divideByZero, signedOverflow, signedRemainder, remainderUpperHalf
    case wideShift, arithmeticShiftSign, signExtension, signExtensionUpperHalf
    case swapUpperHalf, immediateSign, storeImmediateSign, loadSign
    case bitTestWidth, signedComparison, fetchNew, exchangeKeepsUpperHalf, compareAlways
    case calleeSaved, calleeFrame, loopCount, tailCallLimit
    case updateFlag, longestPrefix, sumCarry, headMetadata, tailContents

    #if APUS_PLANTED
    @_noLocks @inline(__always)
    static func has(_ bug: EngineBug) -> Bool { apus_planted_bug_now() == Int32(bug.rawValue) }

    /// Tests alone.
    static func plant(_ bug: EngineBug?) { apus_planted_bug_set(bug.map { Int32($0.rawValue) } ?? -1) }

    /// One in C, for AddressSanitizer to find.
    static func plantOverread() { apus_planted_bug_set(APUS_PLANTED_OVERREAD) }
    #else
    @_noLocks @inline(__always)
    static func has(_ bug: EngineBug) -> Bool { false }
    #endif
}
