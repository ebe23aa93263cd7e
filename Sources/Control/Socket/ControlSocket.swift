public import Foundation
internal import Glibc
internal import Synchronization

/// The stats socket: a command a line in, one JSON document a line out. Serves from a thread of its own.
///
/// Commands run one after another on that thread: they take snapshots and return. A client that sends half a line, reads nothing or
/// goes away costs the others nothing.
public final class ControlSocket: Sendable {
    /// Gets the words behind the command's own; returns JSON.
    public typealias Command = @Sendable (_ arguments: [Substring]) throws(CommandError) -> Data

    public let path: String
    private let wake: Wake
    private let thread: pthread_t
    private let isStopped = Mutex(false)

    /// Listens on `path` and starts to serve.
    ///
    /// - Parameter onThreadStart: runs first on the serving thread: new threads inherit the pinning of the one that makes them, and a
    ///   caller that polls or was pinned by EAL moves the thread off the polling cores here.
    public init(path: String, commands: [String: Command], onThreadStart: @escaping @Sendable () -> Void = {}) throws(SocketError) {
        guard let wake = Wake() else {
            throw SocketError(description: "the control socket has no pipe: \(SystemError.text(errno)); raise the limit of open files")
        }
        let server = ControlServer(listener: try UnixSocket.listen(path), path: path, wake: wake, commands: commands)
        let start = ThreadStart { onThreadStart(); server.run() }
        var thread = pthread_t()
        let box = unsafe Unmanaged.passRetained(start)
        let status = unsafe pthread_create(&thread, nil, { box in
            unsafe Unmanaged<ThreadStart>.fromOpaque(box!).takeRetainedValue().run()
            return nil
        }, box.toOpaque())
        guard status == 0 else {
            unsafe box.release()
            server.close()
            throw SocketError(description: "the control socket has no thread: \(SystemError.text(status)); raise the limit of processes")
        }
        self.path = path
        self.wake = wake
        self.thread = thread
    }

    deinit { stop() }

    /// Ends the thread, closes every client and removes the socket's file. Any number of times, from any thread.
    public func stop() {
        isStopped.withLock { isStopped in
            guard !isStopped else { return }
            isStopped = true
            wake.signal()
            // A command that stops its own server ends after it: the thread cannot wait for itself.
            if pthread_equal(thread, pthread_self()) == 0 { _ = pthread_join(thread, nil) } else { pthread_detach(thread) }
        }
    }
}

/// What the thread runs, in a form that goes through a C pointer.
private final class ThreadStart {
    let run: () -> Void

    init(_ run: @escaping () -> Void) { self.run = run }
}

/// Ends a wait in `poll`. A pipe: Swift's C library module has no `eventfd`.
final class Wake: Sendable {
    let reader: Descriptor
    private let writer: Descriptor

    init?() {
        var ends: [Int32] = [-1, -1]
        guard unsafe pipe(&ends) == 0 else { return nil }
        reader = Descriptor(owning: ends[0])
        writer = Descriptor(owning: ends[1])
        guard UnixSocket.makeNonblocking(ends[0]), UnixSocket.makeNonblocking(ends[1]) else { return nil }
    }

    func signal() { _ = unsafe write(writer.raw, "!", 1) }
}
