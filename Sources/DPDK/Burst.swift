import CDPDK
import Wire

/// Packets that travel together: a fixed array that owns what it holds.
@safe public struct Burst: ~Copyable {
    @usableFromInline let storage: UnsafeMutablePointer<Packet>
    public let capacity: Int
    public private(set) var count = 0
    /// What ``survey()`` found. Until the burst changes.
    public private(set) var survey = BurstSurvey()

    public init(capacity: Int) {
        unsafe storage = .allocate(capacity: capacity)
        self.capacity = capacity
    }

    deinit {
        unsafe storage.deinitialize(count: count)
        unsafe storage.deallocate()
    }

    @inlinable public var isFull: Bool { count == capacity }

    @inlinable public subscript(index: Int) -> Packet {
        unsafeAddress { unsafe UnsafePointer(storage + index) }
    }

    /// Adds a packet; the caller made sure of the room.
    @_noLocks public mutating func append(_ packet: consuming Packet) {
        unsafe (storage + count).initialize(to: packet)
        count &+= 1
        survey.isPlain = false
    }

    /// Takes the packet at `index` out, leaving a hole that the caller closes with ``keep(_:at:)`` and
    /// ``truncate(to:)`` before anything else happens.
    @_noLocks public mutating func take(_ index: Int) -> Packet { unsafe (storage + index).move() }

    /// Puts a packet that was taken into a hole at or before its old place.
    @_noLocks public mutating func keep(_ packet: consuming Packet, at index: Int) {
        unsafe (storage + index).initialize(to: packet)
    }

    /// Everything from `count` on has been taken.
    @_noLocks public mutating func truncate(to count: Int) {
        self.count = count
        survey.isPlain = false
    }

    /// Somebody knows more of these packets than their driver said.
    @_noLocks mutating func isNoLongerPlain() { survey.isPlain = false }

    /// One pass over packets just received: each gets the state `none`, which holds where the burst turns out to be plain.
    @_noLocks mutating func takeSurvey() {
        var flags: UInt64 = 0, seen: UInt64 = 0, sum: UInt64 = 0, short = 0
        for index in 0..<count {
            let mbuf = unsafe storage[index].mbuf
            // Lengths stand in the upper half: 2^32 bytes in a burst would not carry into anything.
            let word = unsafe apus_mbuf_type_and_length(mbuf)
            unsafe flags |= apus_mbuf_flags(mbuf)
            seen |= word
            sum &+= word
            unsafe short |= Int(apus_mbuf_data_length(mbuf)) &- 14
            unsafe apus_mbuf_set_state(mbuf, ChecksumState.none.rawValue)
        }
        let isPlain = flags | (seen & 0xffff_ffff) == 0 && short >= 0
        survey = BurstSurvey(bytes: isPlain ? Int(sum &>> 32) : countBytes(), longestBound: Int(seen &>> 32), isPlain: isPlain)
    }

    @_noLocks @inline(never) private func countBytes() -> Int {
        var bytes = 0
        for index in 0..<count { unsafe bytes &+= storage[index].length }
        return bytes
    }

    // MARK: Drivers' arrays of mbuf pointers

    @usableFromInline var mbufs: UnsafeMutablePointer<OpaquePointer?> {
        unsafe UnsafeMutableRawPointer(storage).assumingMemoryBound(to: OpaquePointer?.self)
    }

    /// Fills the empty burst from a receive queue.
    @_noLocks public mutating func receive(port: UInt16, queue: UInt16) {
        unsafe truncate(to: Int(apus_eth_receive(port, queue, mbufs, UInt16(truncatingIfNeeded: capacity))))
    }

    /// Hands the packets to a transmit queue and gives how many it took. The rest moves to the front.
    /// - Parameter prepares: the driver first writes what it wants into the packets; it stops at one it cannot.
    @_noLocks public mutating func transmit(port: UInt16, queue: UInt16, prepares: Bool) -> Int {
        var ready = UInt16(truncatingIfNeeded: count)
        if prepares { ready = unsafe apus_eth_prepare(port, queue, mbufs, ready) }
        return unsafe left(by: apus_eth_transmit(port, queue, mbufs, ready))
    }

    /// Fills the empty burst from a guest's transmit queue.
    @_noLocks mutating func receive(fromGuestOf port: UnsafeMutablePointer<apus_vhost_port>, queue: UInt16) {
        unsafe truncate(to: Int(apus_vhost_receive(port, queue, mbufs, UInt16(truncatingIfNeeded: capacity))))
    }

    /// Hands the packets to a guest's receive queue and gives how many it took. The rest moves to the front.
    @_noLocks mutating func transmit(toGuestOf port: UnsafeMutablePointer<apus_vhost_port>, queue: UInt16) -> Int {
        unsafe left(by: apus_vhost_transmit(port, queue, mbufs, UInt16(truncatingIfNeeded: count)))
    }

    /// Somebody took the first `sent`.
    @_noLocks private mutating func left(by sent: UInt16) -> Int {
        let sent = Int(sent), left = count &- sent
        if left > 0, sent > 0 { unsafe storage.moveInitialize(from: storage + sent, count: left) }
        truncate(to: left)
        return sent
    }

    /// Moves every packet behind those of `other`, which has the room.
    public mutating func moveAll(to other: inout Burst) {
        for index in 0..<count { other.append(take(index)) }
        truncate(to: 0)
    }

    /// Frees what is left.
    @_noLocks public mutating func drop() {
        unsafe storage.deinitialize(count: count)
        truncate(to: 0)
    }
}

/// What all packets of a burst have in common.
public struct BurstSurvey {
    /// Of all packets together.
    public var bytes = 0
    /// No packet is longer, and the longest is longer than half of it: their lengths, ORed.
    public var longestBound = 0
    /// No packet carries a mark: no flag and no type of a driver's, state `none`; all have a link layer in the first segment.
    /// Nothing has to be expressed to whoever gets them, so that what is asked of a packet is asked once of them all.
    public var isPlain = false
}
