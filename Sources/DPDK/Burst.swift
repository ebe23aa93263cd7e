import CDPDK

/// Packets that travel together: a fixed array that owns what it holds.
@safe public struct Burst: ~Copyable {
    @usableFromInline let storage: UnsafeMutablePointer<Packet>
    public let capacity: Int
    public private(set) var count = 0

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
    }

    /// Takes the packet at `index` out, leaving a hole that the caller closes with ``keep(_:at:)`` and
    /// ``truncate(to:)`` before anything else happens.
    @_noLocks public mutating func take(_ index: Int) -> Packet { unsafe (storage + index).move() }

    /// Puts a packet that was taken into a hole at or before its old place.
    @_noLocks public mutating func keep(_ packet: consuming Packet, at index: Int) {
        unsafe (storage + index).initialize(to: packet)
    }

    /// Everything from `count` on has been taken.
    @_noLocks public mutating func truncate(to count: Int) { self.count = count }

    // MARK: Drivers' arrays of mbuf pointers

    @usableFromInline var mbufs: UnsafeMutablePointer<OpaquePointer?> {
        unsafe UnsafeMutableRawPointer(storage).assumingMemoryBound(to: OpaquePointer?.self)
    }

    /// Fills the empty burst from a receive queue.
    @_noLocks public mutating func receive(port: UInt16, queue: UInt16) {
        count = unsafe Int(apus_eth_receive(port, queue, mbufs, UInt16(truncatingIfNeeded: capacity)))
    }

    /// Hands the packets to a transmit queue and gives how many it took. The rest moves to the front.
    /// - Parameter prepares: the driver first writes what it wants into the packets; it stops at one it cannot.
    @_noLocks public mutating func transmit(port: UInt16, queue: UInt16, prepares: Bool) -> Int {
        var ready = UInt16(truncatingIfNeeded: count)
        if prepares { ready = unsafe apus_eth_prepare(port, queue, mbufs, ready) }
        let sent = unsafe Int(apus_eth_transmit(port, queue, mbufs, ready))
        let left = count &- sent
        if left > 0, sent > 0 { unsafe storage.moveInitialize(from: storage + sent, count: left) }
        count = left
        return sent
    }

    /// Moves every packet behind those of `other`, which has the room.
    public mutating func moveAll(to other: inout Burst) {
        for index in 0..<count { other.append(take(index)) }
        count = 0
    }

    /// Frees what is left.
    @_noLocks public mutating func drop() {
        unsafe storage.deinitialize(count: count)
        count = 0
    }
}
