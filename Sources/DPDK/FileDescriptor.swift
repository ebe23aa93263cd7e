import Glibc

/// Closes a file descriptor with its scope.
struct FileDescriptor: ~Copyable {
    let number: Int32

    /// Takes over `number`, which nobody else closes.
    init(owning number: Int32) { self.number = number }

    deinit { close(number) }
}

/// The same for an array, which takes no noncopyable values.
final class SharedDescriptor: Sendable {
    let number: Int32

    init(owning number: Int32) { self.number = number }

    deinit { close(number) }
}
