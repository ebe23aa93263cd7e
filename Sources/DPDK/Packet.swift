public import CDPDK
public import Wire

/// Sole owner of one mbuf chain: consumed by transmit, or freed when it goes out of scope. An accidental
/// loss is therefore a missing count, never a leak.
@safe @frozen public struct Packet: ~Copyable {
    public let mbuf: OpaquePointer

    /// Takes over `mbuf`, which nobody else frees from here on.
    @inlinable @_noLocks public init(taking mbuf: OpaquePointer) { unsafe self.mbuf = mbuf }

    @inlinable deinit { unsafe apus_mbuf_free(mbuf) }

    /// Gives the mbuf away without freeing it.
    @inlinable @_noLocks public consuming func release() -> OpaquePointer {
        let mbuf = unsafe mbuf
        discard self
        return unsafe mbuf
    }
}

extension Packet {
    /// First byte of the first segment.
    @inlinable public var data: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(apus_mbuf_data(mbuf)) }
    /// Bytes in the first segment.
    @inlinable public var dataLength: Int { unsafe Int(apus_mbuf_data_length(mbuf)) }
    /// Bytes in all segments.
    @inlinable public var length: Int { unsafe Int(apus_mbuf_packet_length(mbuf)) }
    @inlinable public var isLinear: Bool { unsafe apus_mbuf_segment_count(mbuf) == 1 }
    /// The buffer the first segment's window lies in.
    @inlinable public var buffer: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(apus_mbuf_buffer(mbuf)) }
    @inlinable public var bufferLength: Int { unsafe Int(apus_mbuf_buffer_length(mbuf)) }
    /// True if this packet's bytes may be written: nobody else holds them.
    @inlinable public var isExclusive: Bool { unsafe apus_mbuf_is_exclusive(mbuf) }

    @inlinable public var state: ChecksumState {
        get { unsafe ChecksumState(rawValue: apus_mbuf_state(mbuf)) }
        nonmutating set { unsafe apus_mbuf_set_state(mbuf, newValue.rawValue) }
    }

    /// The headers, as far as they lie in the first segment.
    @inlinable @_noLocks public func headers(isSuperframe: Bool) -> Headers {
        unsafe Headers.parse(UnsafeRawPointer(data), available: dataLength, length: length, isSuperframe: isSuperframe)
    }

    @inlinable @_noLocks public func headers() -> Headers { headers(isSuperframe: state.isSuperframe) }

    /// Moves the first segment's window to begin at `start`, `count` bytes long. The caller keeps it inside
    /// the buffer.
    @inlinable @_noLocks public func setWindow(start: UnsafeMutableRawPointer, count: Int) {
        let offset = unsafe start - buffer
        unsafe apus_mbuf_set_window(mbuf, UInt16(truncatingIfNeeded: offset), UInt16(truncatingIfNeeded: count))
    }
}
