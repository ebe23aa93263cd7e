/// The helpers there are, by the kernel's number (include/uapi/linux/bpf.h). Those with an operation of their own are
/// not repeated here.
enum Helper: UInt16 {
    case mapUpdate = 2, mapDelete = 3, tracePrintk = 6, redirect = 23, perfEventOutput = 25, numaNode = 42, redirectMap = 51, fibLookup = 69
    case mapPush = 87, mapPop = 88, mapPeek = 89, spinLock = 93, spinUnlock = 94, stringToLong = 105, stringToUnsigned = 106
    case jiffies = 118, ktimeBoot = 125, ringOutput = 130, ringReserve = 131, ringSubmit = 132, ringDiscard = 133, ringQuery = 134
    case ktimeCoarse = 160, checkMTU = 163, snprintf = 165, traceVprintk = 177, stringCompare = 182
    case loadBytes = 189, storeBytes = 190, mapLookupPerCPU = 195
    case generateCookie4 = 204, generateCookie6 = 205, checkCookie4 = 206, checkCookie6 = 207, ktimeTAI = 208
}

extension Machine {
    /// Calls a helper: arguments in r1 to r5, the answer in r0.
    /// - Returns: false where an argument is none the helper takes, which only unverified code can do.
    @inline(__always)
    mutating func call<T: Trust>(_: T.Type, _ helper: Helper) -> Bool {
        let (r1, r2, r3, r4, r5) = unsafe (registers[1], registers[2], registers[3], registers[4], registers[5])
        let result: UInt64?
        switch helper {
        case .mapUpdate, .mapDelete, .mapPush, .mapPop, .mapPeek, .mapLookupPerCPU:
            result = mapHelper(T.self, helper, r1, r2, r3, r4)
        case .perfEventOutput, .ringOutput, .ringReserve, .ringSubmit, .ringDiscard, .ringQuery:
            result = recordHelper(T.self, helper, r1, r2, r3, r4, r5)
        case .loadBytes, .storeBytes, .checkMTU, .redirect, .redirectMap, .fibLookup:
            result = packetHelper(T.self, helper, r1, r2, r3, r4, r5)
        case .tracePrintk, .traceVprintk, .snprintf, .stringToLong, .stringToUnsigned, .stringCompare:
            result = textHelper(T.self, helper, r1, r2, r3, r4, r5)
        case .spinLock, .spinUnlock: result = lockHelper(T.self, helper, r1)
        case .generateCookie4, .generateCookie6, .checkCookie4, .checkCookie6:
            result = cookieHelper(T.self, helper, r1, r2, r3)
        case .numaNode, .jiffies, .ktimeBoot, .ktimeCoarse, .ktimeTAI: result = Helpers.time(helper)
        }
        guard let result else { return false }
        unsafe registers[0] = result
        return true
    }

    /// Error numbers and lengths as programs get them.
    @_noLocks @inline(__always)
    static func word(_ value: Int64) -> UInt64 { UInt64(bitPattern: value) }
}
