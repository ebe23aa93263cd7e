/// Bytes of an object file. Every read is checked: the file is not to be believed.
struct ByteView {
    private let storage: [UInt8]
    private let start: Int
    let count: Int

    init(_ bytes: [UInt8]) {
        storage = bytes
        start = 0
        count = bytes.count
    }

    private init(_ storage: [UInt8], start: Int, count: Int) {
        self.storage = storage
        self.start = start
        self.count = count
    }

    /// The part from `offset`, `size` bytes long.
    func part(_ offset: UInt64, _ size: UInt64, _ what: @autoclosure () -> String) throws(Malformed) -> ByteView {
        guard offset <= UInt64(count), size <= UInt64(count) - offset else {
            throw Malformed("\(what()) lies outside of its container: \(size) bytes at \(offset) of \(count)")
        }
        return ByteView(storage, start: start + Int(offset), count: Int(size))
    }

    func part(_ offset: Int, _ size: Int, _ what: @autoclosure () -> String) throws(Malformed) -> ByteView {
        try part(UInt64(clamping: offset), UInt64(clamping: size), what())
    }

    func u8(_ offset: Int) throws(Malformed) -> UInt8 {
        guard offset >= 0, offset < count else { throw Malformed("truncated: byte \(offset) of \(count) is missing") }
        return storage[start + offset]
    }

    func u16(_ offset: Int) throws(Malformed) -> UInt16 { UInt16(try little(offset, 2)) }
    func u32(_ offset: Int) throws(Malformed) -> UInt32 { UInt32(try little(offset, 4)) }
    func u64(_ offset: Int) throws(Malformed) -> UInt64 { try little(offset, 8) }

    /// The zero-terminated string at `offset`.
    func string(_ offset: UInt32) throws(Malformed) -> String {
        var end = Int(offset)
        while try u8(end) != 0 { end += 1 }
        return String(decoding: storage[(start + Int(offset))..<(start + end)], as: UTF8.self)
    }

    /// Whether these bytes stand at `offset`.
    func has(_ bytes: [UInt8], at offset: Int) -> Bool {
        guard offset >= 0, offset <= count, bytes.count <= count - offset else { return false }
        for i in 0..<bytes.count where storage[start &+ offset &+ i] != bytes[i] { return false }
        return true
    }

    var bytes: [UInt8] { Array(storage[start..<(start + count)]) }

    private func little(_ offset: Int, _ size: Int) throws(Malformed) -> UInt64 {
        guard offset >= 0, size <= count, offset <= count - size else {
            throw Malformed("truncated: \(size) bytes at \(offset) of \(count) are missing")
        }
        var value: UInt64 = 0
        for i in 0..<size { value |= UInt64(storage[start + offset + i]) << UInt64(8 * i) }
        return value
    }
}
