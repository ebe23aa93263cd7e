internal import Glibc

/// A file descriptor with one owner, who closes it by going away.
struct Descriptor: ~Copyable {
    let raw: Int32

    init(owning raw: Int32) { self.raw = raw }

    deinit { _ = close(raw) }
}

enum SystemError {
    /// The C library's words for an errno, lower case inside a sentence.
    static func text(_ code: Int32) -> String {
        guard let words = unsafe strerror(code) else { return "error \(code)" }
        let text = unsafe String(cString: words)
        return text.prefix(1).lowercased() + text.dropFirst()
    }
}
