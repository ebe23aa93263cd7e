internal import Glibc

/// A Unix socket that cannot be had: one sentence with what to do.
public struct SocketError: Error, Sendable, Equatable, CustomStringConvertible {
    public let description: String
}

/// Unix stream sockets by path: what server, client and vhost-user ports share.
public enum UnixSocket {
    /// `sun_path` has 108 bytes, the last of them zero.
    public static let pathBytesMax = 107

    /// Removes a socket file nobody accepts on. Refuses one that is in use, and anything that is no socket.
    public static func removeStale(_ path: String) throws(SocketError) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else {
            if errno == ENOENT || errno == ENOTDIR { return }
            throw SocketError(description: "\(path): \(SystemError.text(errno)); choose another path or run with more rights")
        }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw SocketError(description: "\(path) exists and is no socket; remove it or choose another path")
        }
        let inUse = SocketError(description: "\(path) is in use by a running program; stop that or choose another path")
        do {
            _ = try connect(path)
        } catch {
            // EAGAIN: somebody listens, and has more callers than it takes.
            if error.code == EAGAIN { throw inUse }
            guard error.code == ECONNREFUSED else {
                throw SocketError(description: "\(path) may be in use (\(SystemError.text(error.code))); remove it or choose another path")
            }
            guard unsafe unlink(path) == 0 || errno == ENOENT else {
                throw SocketError(description: "\(path) is stale and cannot be removed (\(SystemError.text(errno))); remove it")
            }
            return
        }
        throw inUse
    }

    struct ConnectError: Error {
        let code: Int32
    }

    /// A nonblocking connected socket. Where the listener's backlog is full, looks again until the time is over (EAGAIN): such a
    /// socket cannot be polled for its turn.
    static func connect(_ path: String, timeoutMilliseconds: Int32) throws(ConnectError) -> Descriptor {
        let roundMilliseconds: Int32 = 10
        for _ in 0..<(timeoutMilliseconds / roundMilliseconds) {
            do {
                return try connect(path)
            } catch {
                guard error.code == EAGAIN else { throw error }
                usleep(UInt32(roundMilliseconds) * 1000)
            }
        }
        return try connect(path)
    }

    /// The same at once or not at all.
    static func connect(_ path: String) throws(ConnectError) -> Descriptor {
        guard let socket = make() else { throw ConnectError(code: errno) }
        guard unsafe withAddress(path, { unsafe Glibc.connect(socket.raw, $0, $1) }) == 0 else { throw ConnectError(code: errno) }
        return socket
    }

    /// A nonblocking socket that listens on `path`, mode 0660 from its first moment.
    static func listen(_ path: String) throws(SocketError) -> Descriptor {
        guard (1...pathBytesMax).contains(path.utf8.count), !path.utf8.contains(0) else {
            throw SocketError(description: "\(path.quoted) cannot be a socket; give a path of 1 to \(pathBytesMax) bytes")
        }
        // Between looking for a stale file and listening, a second daemon must not do the same.
        let directory = try lockDirectory(of: path)
        defer { withExtendedLifetime(directory) {} }
        try removeStale(path)
        func failure() -> SocketError {
            SocketError(description: "\(path) cannot be listened on: \(SystemError.text(errno)); choose another path or run with more rights")
        }
        guard let socket = make() else { throw failure() }
        // The file gets the descriptor's mode less the umask, so it is never wider than meant; chmod gives back what the umask took.
        guard fchmod(socket.raw, 0o660) == 0, unsafe withAddress(path, { unsafe bind(socket.raw, $0, $1) }) == 0 else { throw failure() }
        guard unsafe chmod(path, 0o660) == 0, Glibc.listen(socket.raw, 64) == 0 else {
            let error = failure()
            _ = unsafe unlink(path)
            throw error
        }
        return socket
    }

    /// Device and inode of the file at `path`.
    static func identity(_ path: String) -> [UInt]? {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return nil }
        return [UInt(status.st_dev), UInt(status.st_ino)]
    }

    /// Swift's C library module has no `SOCK_NONBLOCK` arithmetic on its enum and no `accept4`, hence two steps.
    static func makeNonblocking(_ descriptor: Int32) -> Bool {
        fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0 && fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0
    }

    private static func make() -> Descriptor? {
        let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard raw >= 0 else { return nil }
        guard makeNonblocking(raw) else {
            _ = close(raw)
            return nil
        }
        return Descriptor(owning: raw)
    }

    /// Locks the directory itself, which leaves no lock file behind, and makes it if it is missing: /run is empty after each boot.
    private static func lockDirectory(of path: String) throws(SocketError) -> Descriptor {
        let slash = path.lastIndex(of: "/")
        let directory = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let roundCountMax = 40, roundMicroseconds: UInt32 = 50_000
        _ = unsafe mkdir(directory, 0o755)
        let raw = unsafe open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard raw >= 0 else {
            throw SocketError(description: "\(directory) cannot be used: \(SystemError.text(errno)); make it or choose another path")
        }
        let lock = Descriptor(owning: raw)
        for _ in 0..<roundCountMax {
            if flock(raw, LOCK_EX | LOCK_NB) == 0 { return lock }
            usleep(roundMicroseconds)
        }
        throw SocketError(description: "\(directory) is locked by another program; try again")
    }

    static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        guard path.utf8.count <= pathBytesMax, !path.utf8.contains(0) else {
            errno = ENAMETOOLONG
            return -1
        }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        return unsafe withUnsafeBytes(of: &address) { bytes in
            unsafe body(bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
        }
    }
}
