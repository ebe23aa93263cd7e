import Glibc

/// Numbers that the kernel shows in files.
enum SystemNumber {
    /// nil where there is no such file, or no number in it.
    static func read(_ path: String) -> Int? {
        guard let file = unsafe fopen(path, "r") else { return nil }
        defer { unsafe _ = fclose(file) }
        var line = [CChar](repeating: 0, count: 32)
        guard unsafe fgets(&line, 32, file) != nil else { return nil }
        return Int(String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map(UInt8.init(bitPattern:)), as: UTF8.self))
    }
}
