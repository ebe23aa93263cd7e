/// What the bytes of a key or value mean, as far as the object's types say: enough to show them to people and to read
/// what people write, in a process that has no object.
public indirect enum ValueLayout: Equatable, Sendable, Codable {
    /// A number in the machine's order, or in the network's where its type says so (`__be16`, `__be32`, `__be64`).
    case integer(bytes: Int, isSigned: Bool, isNetworkOrder: Bool)
    case boolean(bytes: Int)
    /// Names of numbers.
    case enumeration(bytes: Int, names: [Int64: String])
    case text(bytes: Int)
    case array(ValueLayout, count: Int)
    case structure([Field], bytes: Int)
    case union([Field], bytes: Int)
    /// Pointers, floating-point numbers, and what no type describes.
    case bytes(Int)

    public struct Field: Equatable, Sendable, Codable {
        public let name: String
        public let offset: Int
        public let layout: ValueLayout
        /// Of a bitfield: its place in the bits of `layout`, and how many.
        public var bits: Bits?
    }

    public struct Bits: Equatable, Sendable, Codable {
        public let shift: Int
        public let count: Int
    }

    public var byteCount: Int {
        switch self {
        case .integer(let n, _, _), .boolean(let n), .enumeration(let n, _), .text(let n), .bytes(let n), .structure(_, let n), .union(_, let n): n
        case .array(let element, let count): element.byteCount * count
        }
    }
}
