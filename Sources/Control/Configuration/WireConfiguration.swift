/// A `[wire NAME]` section: what enters one port leaves by the other.
public struct WireConfiguration: Sendable, Equatable {
    public var name: String
    public var first: String
    public var second: String
    public var line: Int

    static let keys = Vocabulary(["ports"])
}
