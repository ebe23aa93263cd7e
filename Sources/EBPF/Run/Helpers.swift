internal import CBPF

/// Helpers that belong to no other type.
enum Helpers {
    @_noLocks @inline(__always)
    static func map(_ address: UInt64) -> UnsafeMutablePointer<MapStorage> {
        unsafe Memory.pointer(address).assumingMemoryBound(to: MapStorage.self)
    }

    /// `bpf_csum_diff` of Linux 6.13 and later: of any sizes, folded to 16 bits. Before, sizes were multiples of 4 and
    /// the result a 32-bit sum; programs fold it anyway.
    @_noLocks
    static func csumDiff(_ from: UInt64, _ fromSize: UInt64, _ to: UInt64, _ toSize: UInt64, _ seed: UInt64) -> Int64 {
        let fromCount = UInt32(truncatingIfNeeded: fromSize), toCount = UInt32(truncatingIfNeeded: toSize)
        let seed = UInt32(truncatingIfNeeded: seed)
        let result: UInt32
        if fromCount != 0 && toCount != 0 {
            result = add(sum(to, toCount, seed), ~sum(from, fromCount, 0))
        } else if toCount != 0 {
            result = sum(to, toCount, seed)
        } else if fromCount != 0 {
            result = ~sum(from, fromCount, ~seed)
        } else {
            result = seed
        }
        let once = (result & 0xffff) &+ (result >> 16)      // at most 0x1_fffe
        return Int64((once & 0xffff) &+ (once >> 16))
    }

    /// `csum_partial` over 32-bit words in memory order, the last padded with zeros: zero only if everything is, else 1
    /// to 0xffff_ffff.
    @_noLocks @inline(__always)
    private static func sum(_ address: UInt64, _ count: UInt32, _ seed: UInt32) -> UInt32 {
        var total = UInt64(seed)        // at most 2^32 * 2^30: no overflow
        var at: UInt64 = 0
        while at &+ 4 <= UInt64(count) {
            total &+= UInt64(Memory.load32(address &+ at))
            at &+= 4
        }
        var shift: UInt64 = 0
        while at < UInt64(count) {
            total &+= UInt64(Memory.load8(address &+ at)) &<< shift
            at &+= 1
            shift &+= 8
        }
        return add(UInt32(truncatingIfNeeded: total), UInt32(truncatingIfNeeded: total >> 32))
    }

    /// `csum_add`: with end-around carry.
    @_noLocks @inline(__always)
    private static func add(_ a: UInt32, _ b: UInt32) -> UInt32 {
        let (sum, carry) = a.addingReportingOverflow(b)
        return sum &+ (carry && !EngineBug.has(.sumCarry) ? 1 : 0)
    }

    /// `bpf_fib_lookup`: what the kernel refuses is refused in its order, the rest is the host's to answer.
    @_noLocks
    static func fibLookup(_ params: UInt64, _ size: UInt64, _ flags: UInt64) -> Int64 {
        let structure: UInt64 = 64, known: UInt32 = 0x3f        // sizeof(struct bpf_fib_lookup); flags of Linux 6.10
        let flags = UInt32(truncatingIfNeeded: flags)
        if size < structure || flags & ~known != 0 { return -ErrorNumber.invalid }
        let family = Memory.load8(params)
        guard family == 2 || family == 10 else { return -ErrorNumber.addressFamily }     // AF_INET, AF_INET6
        return Int64(apus_route(params, UInt32(size), flags))
    }
}
