internal import CBPF

/// Rules of ``Analysis`` that a build made with APUS_PLANTED can break at run time, one at a time, so that tests show that
/// each is needed. Anywhere else every question folds to `false`.
enum AnalysisBug: UInt8, CaseIterable, Sendable {
    // What lets a wrong checksum out, or a seed in.
    case lookAlone, closedReads, oneWayMarks, branches, spills, differences, ownBytes
    case verdicts, maps, otherBytes, arguments, addresses, unknownSlots, tcpZero, answers, secondRounds
    case ownZero, anyZero, eitherZero
    // What completes packets for nothing.
    case foldsLook, udpZeroLooks, ownReads

    #if APUS_PLANTED
    /// Behind those of ``EngineBug``.
    private var number: Int32 { 1000 + Int32(rawValue) }

    static func has(_ bug: AnalysisBug) -> Bool { apus_planted_bug_now() == bug.number }

    /// Tests alone.
    static func plant(_ bug: AnalysisBug?) { apus_planted_bug_set(bug?.number ?? -1) }
    #else
    @inline(__always)
    static func has(_ bug: AnalysisBug) -> Bool { false }
    #endif
}
