/// Linux error numbers programs meet, the same on every architecture Linux has.
enum ErrorNumber {
    static var notPermitted: Int64 { @_noLocks @inline(__always) get { 1 } }
    static var noEntry: Int64 { @_noLocks @inline(__always) get { 2 } }
    static var tooBig: Int64 { @_noLocks @inline(__always) get { 7 } }
    static var again: Int64 { @_noLocks @inline(__always) get { 11 } }
    static var noMemory: Int64 { @_noLocks @inline(__always) get { 12 } }
    static var noAccess: Int64 { @_noLocks @inline(__always) get { 13 } }
    static var badAddress: Int64 { @_noLocks @inline(__always) get { 14 } }
    static var exists: Int64 { @_noLocks @inline(__always) get { 17 } }
    static var noDevice: Int64 { @_noLocks @inline(__always) get { 19 } }
    static var invalid: Int64 { @_noLocks @inline(__always) get { 22 } }
    static var noSpace: Int64 { @_noLocks @inline(__always) get { 28 } }
    static var range: Int64 { @_noLocks @inline(__always) get { 34 } }
    static var overflow: Int64 { @_noLocks @inline(__always) get { 75 } }
    static var notSupported: Int64 { @_noLocks @inline(__always) get { 95 } }
    static var addressFamily: Int64 { @_noLocks @inline(__always) get { 97 } }
    /// The kernel's own ENOTSUPP, which is in no header for programs.
    static var notSupportedInternally: Int64 { @_noLocks @inline(__always) get { 524 } }
}
