internal import CBPF

/// Raw SYN cookies (net/core/filter.c, net/ipv4/syncookies.c describe the scheme): a keyed hash of the connection, the
/// minute, and the peer's segment size in one of four steps. The key is this process's own.
extension Machine {
    /// r1: IP header, r2: TCP header, r3: its length (generating only).
    @inline(__always)
    func cookieHelper<T: Trust>(_: T.Type, _ helper: Helper, _ ip: UInt64, _ tcp: UInt64, _ size: UInt64) -> UInt64? {
        let isV6 = helper == .generateCookie6 || helper == .checkCookie6
        guard mayRead(T.self, ip, isV6 ? 40 : 20), mayRead(T.self, tcp, 20) else { return nil }
        if helper == .checkCookie4 || helper == .checkCookie6 {
            return Machine.word(SYNCookie.check(ip, tcp, isV6: isV6) ? 0 : -ErrorNumber.noAccess)
        }
        let length = UInt64(UInt32(truncatingIfNeeded: size))
        guard length <= 60 else { return T.isChecked ? nil : Machine.word(-ErrorNumber.invalid) }
        guard mayRead(T.self, tcp, Int(length)) else { return nil }
        let header = UInt64(Memory.load8(tcp &+ 12) >> 4) &* 4
        guard length >= 20, length == header else { return Machine.word(-ErrorNumber.invalid) }
        return SYNCookie.generate(ip, tcp, length, isV6: isV6)
    }
}

enum SYNCookie {
    private static var mask: UInt32 { @_noLocks @inline(__always) get { 0xff_ffff } }

    /// The cookie, and above it the segment size it stands for.
    @_noLocks
    static func generate(_ ip: UInt64, _ tcp: UInt64, _ length: UInt64, isV6: Bool) -> UInt64 {
        let offered = segmentSize(tcp, length)
        var step: UInt32 = 3
        while step > 0 && offered < size(step, isV6) { step &-= 1 }
        let minute = now
        let base = hash(ip, tcp, 0, 0, isV6) &+ Memory.load32(tcp &+ 4).bigEndian &+ minute &<< 24
        let cookie = base &+ ((hash(ip, tcp, minute, 1, isV6) &+ step) & mask)
        return UInt64(cookie) | UInt64(size(step, isV6)) << 32
    }

    @_noLocks
    static func check(_ ip: UInt64, _ tcp: UInt64, isV6: Bool) -> Bool {
        let sequence = Memory.load32(tcp &+ 4).bigEndian &- 1
        let cookie = Memory.load32(tcp &+ 8).bigEndian &- 1 &- hash(ip, tcp, 0, 0, isV6) &- sequence
        let age = (now &- cookie >> 24) & 0xff
        guard age < 2 else { return false }
        return (cookie &- hash(ip, tcp, now &- age, 1, isV6)) & mask < 4
    }

    private static var now: UInt32 { @_noLocks get { UInt32(truncatingIfNeeded: apus_ktime_ns(APUS_CLOCK_MONOTONIC) / 60_000_000_000) } }

    @_noLocks
    private static func size(_ step: UInt32, _ isV6: Bool) -> UInt32 {
        switch step {
        case 0: isV6 ? 1280 &- 60 : 536
        case 1: isV6 ? 1480 &- 60 : 1300
        case 2: isV6 ? 1500 &- 60 : 1440
        default: isV6 ? 9000 &- 60 : 1460
        }
    }

    /// The MSS option, or 536.
    @_noLocks
    private static func segmentSize(_ tcp: UInt64, _ length: UInt64) -> UInt32 {
        var at: UInt64 = 20
        while at < length {
            let kind = Memory.load8(tcp &+ at)
            if kind == 0 { break }
            if kind == 1 {
                at &+= 1
                continue
            }
            guard at &+ 1 < length else { break }
            let size = UInt64(Memory.load8(tcp &+ at &+ 1))
            guard size >= 2, at &+ size <= length else { break }
            if kind == 2 && size == 4 {
                let value = UInt32(Memory.load16(tcp &+ at &+ 2).bigEndian)
                if value != 0 { return value }
            }
            at &+= size
        }
        return 536
    }

    @_noLocks
    private static func hash(_ ip: UInt64, _ tcp: UInt64, _ minute: UInt32, _ key: UInt32, _ isV6: Bool) -> UInt32 {
        apus_cookie_hash(ip &+ (isV6 ? 8 : 12), isV6 ? 32 : 8, tcp, minute, key)
    }
}
