public import Foundation
internal import Glibc

/// The other end of the stats socket: one request, one reply, in turn.
public struct ControlClient: ~Copyable {
    /// More than any document has; a peer that is no daemon must not fill memory.
    static let replyBytesMax = 64 << 20

    private let path: String
    private let socket: Descriptor
    private let timeoutMilliseconds: Int32
    private var input: [UInt8] = []

    public init(path: String, timeoutMilliseconds: Int32 = 5000) throws(SocketError) {
        self.path = path
        self.timeoutMilliseconds = timeoutMilliseconds
        do {
            socket = try UnixSocket.connect(path, timeoutMilliseconds: timeoutMilliseconds)
        } catch {
            let sentence = switch error.code {
            case ENOENT: "There is no socket \(path): start apus, or name its stats-socket with -s."
            case ECONNREFUSED: "No daemon answers on \(path): start apus, or name its stats-socket with -s."
            case EACCES, EPERM: "You may not use \(path): run apusctl as root or as a member of the socket's group."
            case EAGAIN: "The daemon at \(path) is too busy to answer: try again."
            case let code: "\(path) cannot be used: \(SystemError.text(code))."
            }
            throw SocketError(description: sentence)
        }
    }

    /// Sends a line and returns the line that answers it, without its newline.
    public mutating func request(_ line: String) throws(SocketError) -> Data {
        try send(Array("\(line)\n".utf8))
        while true {
            if let end = input.firstIndex(of: UInt8(ascii: "\n")) {
                let reply = Data(input[..<end])
                input.removeSubrange(...end)
                return reply
            }
            try receive()
        }
    }

    private func send(_ bytes: [UInt8]) throws(SocketError) {
        var sentCount = 0
        while sentCount < bytes.count {
            let sent = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.send(socket.raw, $0.baseAddress! + sentCount, $0.count - sentCount, Int32(MSG_NOSIGNAL))
            }
            if sent >= 0 { sentCount += sent } else { try wait(for: POLLOUT) }
        }
    }

    private mutating func receive() throws(SocketError) {
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        let received = unsafe chunk.withUnsafeMutableBytes { unsafe recv(socket.raw, $0.baseAddress, $0.count, 0) }
        if received < 0 { return try wait(for: POLLIN) }
        guard received > 0 else {
            throw SocketError(description: "The daemon at \(path) closed the connection: it is stopping, or has too many clients.")
        }
        input += chunk[..<received]
        guard input.count <= Self.replyBytesMax else { throw SocketError(description: "\(path) gives no end to its reply: is it a stats-socket?") }
    }

    private func wait(for event: Int32) throws(SocketError) {
        guard errno == EAGAIN || errno == EINTR else {
            throw SocketError(description: "The connection to \(path) broke: \(SystemError.text(errno)).")
        }
        var polled = pollfd(fd: socket.raw, events: Int16(event), revents: 0)
        guard unsafe poll(&polled, 1, timeoutMilliseconds) != 0 else {
            throw SocketError(description: "\(path) does not answer within \(timeoutMilliseconds) ms: is it a stats-socket?")
        }
    }
}
