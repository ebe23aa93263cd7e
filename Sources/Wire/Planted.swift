#if APUS_PLANTED
public import CChecksum
#endif

/// The rules of the checksum contract that a build made with APUS_PLANTED can break at run time, one at a
/// time, so that tests show that each breakage would be found. Anywhere else every question folds to `false`.
public enum Planted: UInt8, CaseIterable, Sendable {
    case headerDestination, unknownRouting, homeAddress, sourceRoute, authentication, udpLength, superframeLength
    case trailingBytes, extensionsUnasked, fragmentCompletion, sctpSum, sctpRewrite, icmp6PseudoHeader
    case zeroIsZero, inferAny, verifyTrusts, longFrame, longSegments, untrustedCut, opaqueUnasked
    case sharedHeaders, reseedWithoutChecksum, fragmentKnown, enclosingChecksum, tagMoves, oddSplit, opaqueEnd
    case vhostSeed, udpFragmentsAsDatagrams
    case checksumPlace, segmentCount, mergedUntrusted, bothBitsOfDevices, goodWithoutChecksum, deliverFull, reseedShared
    case sequenceStays, lastFlags, congestionBit
    case lookLeavesShadow, opaqueWritten

    /// Those that show in a program's runs alone.
    public static let ofRuns: [Planted] = [.lookLeavesShadow, .opaqueWritten]

    #if APUS_PLANTED
    @inlinable @inline(__always) @_noLocks
    public static func breaks(_ rule: Planted) -> Bool { apus_planted_rule_now() == Int32(rule.rawValue) }

    /// Tests alone.
    public static func plant(_ rule: Planted?) { apus_planted_rule_set(rule.map { Int32($0.rawValue) } ?? -1) }
    #else
    @inlinable @inline(__always) @_noLocks
    public static func breaks(_ rule: Planted) -> Bool { false }
    #endif
}
