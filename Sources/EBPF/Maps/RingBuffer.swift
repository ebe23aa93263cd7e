internal import CBPF

/// A ring of records as the kernel lays it out: a header of 8 bytes (length with two flag bits), then the data, rounded
/// up to 8. Lcores reserve under a lock and commit without; one consumer reads. Used by ring buffer maps and, one a
/// CPU, by perf event arrays.
///
/// The consumer believes nothing it reads: under `verify = sandbox` a program could write anywhere in `data`.
@safe struct RingBuffer {
    /// Mapped twice in a row, so that every record is contiguous.
    let data: UInt64
    let mask: UInt64
    var consumer: UInt64 = 0
    var producer: UInt64 = 0
    var lock: UInt32 = 0
    var lost: UInt64 = 0

    private static var busy: UInt32 { @_noLocks @inline(__always) get { 1 << 31 } }
    private static var discarded: UInt32 { @_noLocks @inline(__always) get { 1 << 30 } }
    static var header: UInt64 { @_noLocks @inline(__always) get { 8 } }

    init?(bytes: Int) {
        guard let at = unsafe apus_ring_map(bytes) else { return nil }
        data = UInt64(UInt(bitPattern: at))
        mask = UInt64(bytes - 1)
    }

    func free() { unsafe apus_ring_unmap(Memory.pointer(data), Int(mask + 1)) }

    /// Where `size` bytes may be written, 0 if there is no room.
    @_noLocks
    mutating func reserve(_ size: UInt64) -> UInt64 {
        guard size <= UInt64(UInt32.max / 4) else { return 0 }
        let length = (size &+ RingBuffer.header &+ 7) & ~7
        guard length <= mask &+ 1 else { return 0 }
        unsafe apus_lock(&lock)
        defer { unsafe apus_unlock(&lock) }
        let end = producer &+ length
        if end &- (unsafe apus_acquire64(&consumer)) > mask {
            lost &+= 1
            return 0
        }
        let record = data &+ (producer & mask)
        Memory.store64(record, UInt64(UInt32(truncatingIfNeeded: size) | RingBuffer.busy))
        unsafe apus_release64(&producer, end)
        return record &+ RingBuffer.header
    }

    /// Hands a reserved record to the consumer, or has it skipped.
    @_noLocks
    static func commit(_ record: UInt64, discard: Bool) {
        let header = unsafe Memory.word32(record &- RingBuffer.header)
        let length = unsafe header.pointee & ~(busy | discarded)
        unsafe apus_release32(header, discard ? length | discarded : length)
    }

    /// A record of two parts, `bpf_ringbuf_output` and `bpf_perf_event_output`: false if there is no room.
    @_noLocks
    mutating func write(_ first: UInt64, _ firstSize: UInt64, _ second: UInt64 = 0, _ secondSize: UInt64 = 0) -> Bool {
        let record = reserve(firstSize &+ secondSize)
        if record == 0 { return false }
        unsafe apus_move(Memory.pointer(record), Memory.pointer(first), Int(firstSize))
        if secondSize > 0 { unsafe apus_move(Memory.pointer(record &+ firstSize), Memory.pointer(second), Int(secondSize)) }
        RingBuffer.commit(record, discard: false)
        return true
    }

    /// `bpf_ringbuf_query`
    @_noLocks
    mutating func query(_ what: UInt64) -> UInt64 {
        switch what {
        case 0: (unsafe apus_acquire64(&producer)) &- (unsafe apus_acquire64(&consumer))
        case 1: mask &+ 1
        case 2: unsafe apus_acquire64(&consumer)
        case 3: unsafe apus_acquire64(&producer)
        default: 0
        }
    }

    /// The next record that is complete and was not discarded.
    mutating func next() -> [UInt8]? {
        while consumer < (unsafe apus_acquire64(&producer)) {
            let at = data + (consumer & mask)
            let header = unsafe apus_acquire32(Memory.word32(at))
            if header & RingBuffer.busy != 0 { return nil }
            let size = UInt64(header & ~RingBuffer.discarded)
            let length = (size + RingBuffer.header + 7) & ~7
            guard length <= producer - consumer else {
                // Not what a producer wrote: whatever is there is given up.
                lost += 1
                unsafe apus_release64(&consumer, producer)
                return nil
            }
            let bytes = unsafe Array(UnsafeRawBufferPointer(start: Memory.pointer(at + RingBuffer.header), count: Int(size)))
            unsafe apus_release64(&consumer, consumer + length)
            if header & RingBuffer.discarded == 0 { return bytes }
        }
        return nil
    }
}

extension MapStorage {
    /// Of a ring buffer map. It lies outside of the map's description, because its positions change.
    var ring: UnsafeMutablePointer<RingBuffer> {
        @_noLocks get { unsafe Memory.pointer(table).assumingMemoryBound(to: RingBuffer.self) }
    }

    /// `bpf_perf_event_output` without the context: to the ring of `index` (of this CPU if all ones).
    @_noLocks
    func eventOutput(_ flags: UInt64, _ data: UInt64, _ size: UInt64, _ packet: UInt64, _ packetSize: UInt64) -> Int64 {
        let current: UInt64 = 0xffff_ffff
        let cpu = UInt64(apus_cpu())
        let index = flags & current == current ? cpu : flags & current
        guard index < UInt64(maxEntries) else { return -ErrorNumber.tooBig }
        let ring = unsafe apus_acquire64(Memory.word64(table &+ index &* UInt64(stride)))
        guard ring != 0 else { return -ErrorNumber.noEntry }
        // The kernel's events belong to a CPU and are written on it.
        guard index == cpu else { return -ErrorNumber.notSupported }
        let buffer = unsafe Memory.pointer(ring).assumingMemoryBound(to: RingBuffer.self)
        return unsafe buffer.pointee.write(data, size, packet, packetSize) ? 0 : -ErrorNumber.noSpace
    }
}
