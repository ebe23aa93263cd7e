import Glibc

/// Closes a file descriptor with its scope.
struct FileDescriptor: ~Copyable {
    let number: Int32

    /// Takes over `number`, which nobody else closes.
    init(owning number: Int32) { self.number = number }

    deinit { close(number) }
}
