import Glibc

/// The socket file a killed process leaves behind, on which nobody can bind.
public enum StaleSocket {
    /// Removes the file at `path` if it is a socket nobody accepts on.
    /// - Throws: where somebody does, or where something else has that name.
    public static func remove(_ path: String) throws(DPDKError) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw DPDKError("'\(path)' exists and is no socket; move it away or choose another path")
        }
        guard try !accepts(path) else { throw DPDKError("another process listens on '\(path)': stop it, or choose another path") }
        unsafe _ = unlink(path)
    }

    /// True if a connection to the socket at `path` succeeds; whoever listens sees it come and go.
    public static func isListenedOn(_ path: String) -> Bool { (try? accepts(path)) ?? false }

    private static func accepts(_ path: String) throws(DPDKError) -> Bool {
        let fd = FileDescriptor(owning: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let capacity = MemoryLayout.size(ofValue: address.sun_path)
        guard path.utf8.count < capacity else {
            throw DPDKError("the socket path '\(path)' is longer than \(capacity - 1) bytes")
        }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        let connected = unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(fd.number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        return connected == 0
    }
}
