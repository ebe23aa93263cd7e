public import Foundation

/// A command that failed: the client gets `{"error":"…"}`.
public struct CommandError: Error, Sendable, Equatable {
    public let message: String

    public init(_ message: String) {
        self.message = message
    }
}

/// One line of JSON, as commands of the control socket give it.
public enum ControlReply {
    /// Keys sorted, no line break. A value that JSON cannot carry (a number that is none) becomes an error reply.
    public static func json(_ value: some Encodable) -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return (try? encoder.encode(value)) ?? Data(#"{"error":"the reply cannot be written as JSON"}"#.utf8)
    }

    static func error(_ message: String) -> Data { json(["error": message]) }
}
