import CDPDK
import Wire

/// What one lcore saw pass, for whoever captures: a ring of bytes with one writer and one reader.
///
/// Off, it costs a flag's load a burst. On, packets are copied; where the reader is too slow they are counted as missed,
/// and nothing waits. Its memory is never touched before it is first switched on.
@safe public struct CaptureRing: @unchecked Sendable {
    // @unchecked: the two cursors are atomic, each with one writer; flag and filter are written by control only.
    public enum Kind: UInt8, Sendable { case received, transmitted, dropped, padding }

    /// Before the captured bytes, which are padded to 8.
    @safe public struct Record: Sendable {
        public var bytes: UInt32 = 0
        public var captured: UInt32 = 0
        public var length: UInt32 = 0
        public var port: UInt16 = 0
        public var kind: UInt8 = 0
        public var reason: UInt8 = 0
        public var cycles: UInt64 = 0
        public var state: UInt64 = 0
    }

    @safe struct Control {
        /// control: wo
        var isOn = false
        /// Only this port, or all where it is negative. control: wo, while off
        var port: Int32 = -1
        /// control: wo, while off
        var lengthMax: UInt32 = 0
        var padding: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
        /// Bytes written, of which the lcore is the only writer, and packets missed.
        var head: UInt64 = 0
        var missed: UInt64 = 0
        var padding2: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
        /// Bytes read. control: wo
        var tail: UInt64 = 0
    }

    private let control: UnsafeMutablePointer<Control>
    private let data: UnsafeMutableRawPointer

    public static var byteCount: Int { 4 << 20 }

    public init() {
        unsafe control = .allocate(capacity: 1)
        unsafe control.initialize(to: Control())
        unsafe data = .allocate(byteCount: Self.byteCount, alignment: 64)
    }

    /// Nobody writes or reads any more.
    public func free() {
        unsafe control.deallocate()
        unsafe data.deallocate()
    }

    // MARK: The lcore

    public var isOn: Bool { unsafe apus_flag_load(&control.pointee.isOn) }

    @_noLocks @inline(never)
    func record(_ packet: borrowing Packet, _ kind: Kind, port: Int, reason: UInt8 = 0) {
        let only = unsafe control.pointee.port
        guard only < 0 || Int(only) == port else { return }
        let length = packet.length
        let captured = min(length, unsafe Int(control.pointee.lengthMax))
        let header = MemoryLayout<Record>.size
        let bytes = header &+ (captured &+ 7) & ~7
        var head = unsafe control.pointee.head
        let free = unsafe Self.byteCount &- Int(head &- apus_shared_load(&control.pointee.tail))
        var at = Int(head) & (Self.byteCount &- 1)
        // A record never wraps; what is left at the end is skipped.
        let skip = Self.byteCount &- at < bytes ? Self.byteCount &- at : 0
        guard skip &+ bytes <= free else {
            unsafe apus_counter_add(&control.pointee.missed, 1)
            return
        }
        var record = Record()
        if skip > 0 {
            // At least a word is left: everything is a multiple of 8.
            unsafe data.storeBytes(of: UInt32(truncatingIfNeeded: skip), toByteOffset: at, as: UInt32.self)
            unsafe data.storeBytes(of: UInt32.max, toByteOffset: at &+ 4, as: UInt32.self)
            head &+= UInt64(truncatingIfNeeded: skip)
            at = 0
        }
        record.bytes = UInt32(truncatingIfNeeded: bytes)
        record.captured = UInt32(truncatingIfNeeded: captured)
        record.length = UInt32(truncatingIfNeeded: length)
        record.port = UInt16(truncatingIfNeeded: port)
        record.kind = switch kind { case .received: 0; case .transmitted: 1; case .dropped: 2; case .padding: 3 }
        record.reason = reason
        record.cycles = apus_cycles()
        record.state = packet.state.rawValue
        unsafe (data + at).storeBytes(of: record, as: Record.self)
        unsafe packet.copyBytes(from: 0, count: captured, to: data + at + header)
        unsafe apus_shared_store(&control.pointee.head, head &+ UInt64(truncatingIfNeeded: bytes))
    }

    // MARK: Control

    /// Begins to record, from here on, what passes `port` (nil: any), `lengthMax` bytes of each packet.
    public func start(port: Int?, lengthMax: Int) {
        unsafe apus_shared_store(&control.pointee.tail, apus_shared_load(&control.pointee.head))
        unsafe control.pointee.port = Int32(port ?? -1)
        unsafe control.pointee.lengthMax = UInt32(lengthMax)
        unsafe apus_flag_store(&control.pointee.isOn, true)
    }

    public func stop() { unsafe apus_flag_store(&control.pointee.isOn, false) }

    /// Hands over what is there, oldest first. The bytes are valid during the call.
    public func drain(_ body: (Record, UnsafeRawBufferPointer) -> Void) {
        let head = unsafe apus_shared_load(&control.pointee.head)
        var tail = unsafe control.pointee.tail
        while tail != head {
            let at = unsafe data + Int(tail) & (Self.byteCount - 1)
            let bytes = unsafe at.load(as: UInt32.self)
            if unsafe at.load(fromByteOffset: 4, as: UInt32.self) != UInt32.max {
                let record = unsafe at.load(as: Record.self)
                unsafe body(record, UnsafeRawBufferPointer(start: at + MemoryLayout<Record>.size, count: Int(record.captured)))
            }
            tail += UInt64(bytes)
            unsafe apus_shared_store(&control.pointee.tail, tail)
        }
    }

    public var missed: UInt64 { unsafe apus_counter_load(&control.pointee.missed) }
}

/// A port of one lcore, as that lcore's ring knows it. Trivial; the ring outlives it.
@safe public struct CaptureTap {
    let ring: CaptureRing
    let port: Int

    public init(_ ring: CaptureRing, port: Int) {
        self.ring = ring
        self.port = port
    }

    @_noLocks public func received(_ burst: borrowing Burst) { record(burst, .received) }
    @_noLocks public func transmitting(_ burst: borrowing Burst) { record(burst, .transmitted) }

    @_noLocks
    private func record(_ burst: borrowing Burst, _ kind: CaptureRing.Kind) {
        guard ring.isOn else { return }
        for index in 0..<burst.count { ring.record(burst[index], kind, port: port) }
    }

    @_noLocks
    func dropped(_ packet: borrowing Packet, _ reason: DropReason) {
        guard ring.isOn else { return }
        ring.record(packet, .dropped, port: port, reason: reason.rawValue)
    }
}
