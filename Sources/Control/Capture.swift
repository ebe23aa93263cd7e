public import Foundation

/// Blocks of a pcapng file (draft-ietf-opsawg-pcapng), as Wireshark reads them: ports as interfaces, times in
/// nanoseconds, direction as a flag, and what only the forwarder knows as comments. Little endian.
public enum Pcapng {
    /// - Parameter interfaces: names, in the order that packets refer to them.
    public static func header(application: String, interfaces: [String]) -> Data {
        // Section header: byte order, version 1.0, length not said.
        var header = block(0x0A0D_0D0A, [0x1A2B_3C4D, 0x0000_0001, 0xffff_ffff, 0xffff_ffff], options: [(4, Array(application.utf8))])
        // Interface description: Ethernet, no limit; its name, and that times are 10^-9.
        for name in interfaces { header += block(1, [1, 0], options: [(2, Array(name.utf8)), (9, [9])]) }
        return header
    }

    public enum Direction: UInt32, Sendable { case inbound = 1, outbound = 2 }

    /// - Parameters:
    ///   - time: nanoseconds since 1970.
    ///   - length: of the packet, of which `bytes` are the first.
    public static func packet(interface: Int, time: UInt64, length: Int, bytes: some Collection<UInt8>, direction: Direction?,
                              comment: String) -> Data {
        var body = words([UInt32(interface), UInt32(truncatingIfNeeded: time >> 32), UInt32(truncatingIfNeeded: time),
                          UInt32(bytes.count), UInt32(length)])
        body += padded(Data(bytes))
        var options: [(UInt16, [UInt8])] = []
        if !comment.isEmpty { options.append((1, Array(comment.utf8))) }
        if let direction { options.append((2, Array(words([direction.rawValue])))) }
        return block(6, body, options)
    }

    /// The length of the block that `data` begins with, or nil where that is not there yet. 0 is no block.
    public static func blockLength(_ data: Data) -> Int? {
        guard data.count >= 8 else { return nil }
        return Int(data.dropFirst(4).prefix(4).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
    }

    private static func block(_ type: UInt32, _ body: [UInt32], options: [(UInt16, [UInt8])]) -> Data { block(type, words(body), options) }

    private static func block(_ type: UInt32, _ body: Data, _ options: [(UInt16, [UInt8])]) -> Data {
        var rest = body
        for (code, value) in options {
            rest += words([UInt32(code) | UInt32(value.count) << 16])
            rest += padded(Data(value))
        }
        if !options.isEmpty { rest += words([0]) }
        let length = UInt32(rest.count + 12)
        return words([type, length]) + rest + words([length])
    }

    private static func words(_ values: [UInt32]) -> Data {
        Data(values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * UInt32($0))) } })
    }

    private static func padded(_ data: Data) -> Data { data + Data(repeating: 0, count: (4 - data.count % 4) % 4) }
}
