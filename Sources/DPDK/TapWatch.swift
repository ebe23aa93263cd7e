import CLinux

/// Finds out which of an lcore's taps have something to read, in one system call for all of them.
///
/// Owned by its lcore. The queues outlive it.
public struct TapWatch: ~Copyable {
    private let epoll: FileDescriptor?

    /// Watches nothing, and costs nothing.
    public init() { epoll = nil }

    public init(over taps: [PortQueue]) throws(DPDKError) { epoll = try Self.open(taps) }

    private static func open(_ taps: [PortQueue]) throws(DPDKError) -> FileDescriptor {
        let number = apus_watch_open()
        guard number >= 0 else { throw DPDKError("cannot watch tap devices", number) }
        let epoll = FileDescriptor(owning: number)
        for (place, queue) in taps.enumerated() {
            guard let tap = queue.tapDescriptor else { preconditionFailure("only taps are watched") }
            let status = apus_watch_add(epoll.number, tap, bit(ofTap: place))
            guard status == 0 else { throw DPDKError("cannot watch a tap device", status) }
        }
        return epoll
    }

    /// What ``look()`` answers for a tap, by its place in the array. Behind 64 of them bits are shared.
    public static func bit(ofTap number: Int) -> UInt64 { 1 << UInt64(number % 64) }

    public var isWatching: Bool { @_noLocks get { epoll != nil } }

    /// Bits of the queues that have something to read now.
    @_noLocks
    public func look() -> UInt64 {
        switch epoll {
        case .some(let epoll): apus_watch_look(epoll.number)
        case nil: 0
        }
    }
}
