/// Loads and stores at a byte offset, for code that has checked its bounds. Network order unless the
/// name says otherwise.
extension UnsafeRawPointer {
    @inlinable @_noLocks public func byte(_ at: Int) -> UInt8 { unsafe load(fromByteOffset: at, as: UInt8.self) }

    @inlinable @_noLocks public func bigEndian16(_ at: Int) -> UInt16 {
        unsafe UInt16(bigEndian: loadUnaligned(fromByteOffset: at, as: UInt16.self))
    }

    /// As it lies in memory: for sums.
    @inlinable @_noLocks public func memoryOrder16(_ at: Int) -> UInt16 {
        unsafe loadUnaligned(fromByteOffset: at, as: UInt16.self)
    }

    @inlinable @_noLocks public func memoryOrder32(_ at: Int) -> UInt32 {
        unsafe loadUnaligned(fromByteOffset: at, as: UInt32.self)
    }
}

extension UnsafeMutableRawPointer {
    @inlinable @_noLocks public func storeBigEndian16(_ value: UInt16, _ at: Int) {
        unsafe storeBytes(of: value.bigEndian, toByteOffset: at, as: UInt16.self)
    }

    @inlinable @_noLocks public func storeBigEndian32(_ value: UInt32, _ at: Int) {
        unsafe storeBytes(of: value.bigEndian, toByteOffset: at, as: UInt32.self)
    }

    @inlinable @_noLocks public func storeMemoryOrder16(_ value: UInt16, _ at: Int) {
        unsafe storeBytes(of: value, toByteOffset: at, as: UInt16.self)
    }
}
