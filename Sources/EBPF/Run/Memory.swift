internal import CBPF

/// Host memory by address. A verified program's addresses are proved by the kernel's verifier; these are the only
/// places where the engine follows them.
enum Memory {
    @_noLocks @inline(__always)
    static func pointer(_ address: UInt64) -> UnsafeMutableRawPointer { unsafe apus_pointer(address) }
    @_noLocks @inline(__always)
    static func word32(_ address: UInt64) -> UnsafeMutablePointer<UInt32> { unsafe apus_word32(address) }
    @_noLocks @inline(__always)
    static func word64(_ address: UInt64) -> UnsafeMutablePointer<UInt64> { unsafe apus_word64(address) }

    @_noLocks @inline(__always)
    static func load8(_ address: UInt64) -> UInt8 { apus_load8(address) }
    @_noLocks @inline(__always)
    static func load16(_ address: UInt64) -> UInt16 { apus_load16(address) }
    @_noLocks @inline(__always)
    static func load32(_ address: UInt64) -> UInt32 { apus_load32(address) }
    @_noLocks @inline(__always)
    static func load64(_ address: UInt64) -> UInt64 { apus_load64(address) }

    @_noLocks @inline(__always)
    static func store8(_ address: UInt64, _ value: UInt64) { apus_store8(address, UInt8(truncatingIfNeeded: value)) }
    @_noLocks @inline(__always)
    static func store16(_ address: UInt64, _ value: UInt64) { apus_store16(address, UInt16(truncatingIfNeeded: value)) }
    @_noLocks @inline(__always)
    static func store32(_ address: UInt64, _ value: UInt64) { apus_store32(address, UInt32(truncatingIfNeeded: value)) }
    @_noLocks @inline(__always)
    static func store64(_ address: UInt64, _ value: UInt64) { apus_store64(address, value) }
}
