internal import Foundation
internal import Glibc

/// One client of the control socket. Every buffer is bounded: a line by `lineBytesMax`; replies by not taking the next command while
/// `outputBytesMax` are unread, so that a client which never reads holds one reply more than that and then waits for itself.
final class ControlConnection {
    /// With its newline.
    static let lineBytesMax = 4096
    static let outputBytesMax = 64 << 10
    /// Commands taken in one turn, so that a client with many ready does not keep the others waiting.
    static let turnCommandsMax = 16

    let descriptor: Descriptor
    /// Order of the last activity among all clients: the least recent makes room when there are too many.
    var lastActive: UInt64 = 0
    private(set) var isBroken = false

    private var input: [UInt8] = []
    private var output: [UInt8] = []
    private var outputSentCount = 0
    private var hasInputEnded = false

    init(_ descriptor: consuming Descriptor) {
        self.descriptor = descriptor
    }

    var outputPendingCount: Int { output.count - outputSentCount }
    private var isOutputFull: Bool { outputPendingCount >= Self.outputBytesMax }
    private var hasLine: Bool { input.contains(UInt8(ascii: "\n")) || (hasInputEnded && !input.isEmpty) }

    var isFinished: Bool { isBroken || (hasInputEnded && input.isEmpty && outputPendingCount == 0) }
    /// A line waits for no event but its turn.
    var isReady: Bool { hasLine && !isOutputFull }
    var events: Int16 {
        // While a line waits nothing more is read: the socket's own buffer pushes back on the client.
        Int16(hasInputEnded || hasLine ? 0 : POLLIN) | Int16(outputPendingCount > 0 ? POLLOUT : 0)
    }

    /// One read of what fits.
    func receive() {
        let room = Self.lineBytesMax - input.count
        guard !hasInputEnded, room > 0 else { return }
        let count = input.count
        input.append(contentsOf: repeatElement(0, count: room))
        let received = unsafe input.withUnsafeMutableBytes { unsafe recv(descriptor.raw, $0.baseAddress! + count, room, 0) }
        input.removeLast(room - max(received, 0))
        if received == 0 { hasInputEnded = true }
        if received < 0, errno != EAGAIN, errno != EINTR { isBroken = true }
    }

    /// Answers what is complete and sends what goes.
    func advance(_ answer: (Substring) -> Data) {
        for _ in 0..<Self.turnCommandsMax {
            flush()
            guard !isBroken, !isOutputFull, let line = nextLine() else { break }
            enqueue(answer(line))
        }
        if input.count >= Self.lineBytesMax, !hasLine {
            enqueue(ControlReply.error("a command line has at most \(Self.lineBytesMax) bytes"))
            input = []
            hasInputEnded = true
        }
        flush()
    }

    /// The peer is gone: nothing more can be said to it.
    func abandon() { isBroken = true }

    private func nextLine() -> Substring? {
        // What ends without a newline is a line too: `printf stats | socat - …`.
        guard hasLine else { return nil }
        let end = input.firstIndex(of: UInt8(ascii: "\n")) ?? input.endIndex
        var line = input[..<end]
        if line.last == UInt8(ascii: "\r") { line.removeLast() }
        let text = String(decoding: line, as: UTF8.self)
        input.removeSubrange(..<min(end + 1, input.endIndex))
        return text[...]
    }

    private func enqueue(_ reply: Data) {
        // In JSON a line break between tokens is a blank, and inside a string it cannot stand.
        let newline = UInt8(ascii: "\n")
        output += reply.contains(newline) ? Data(reply.map { $0 == newline ? UInt8(ascii: " ") : $0 }) : reply
        output.append(newline)
    }

    private func flush() {
        while outputPendingCount > 0, !isBroken {
            let sent = unsafe output.withUnsafeBytes { bytes in
                unsafe send(descriptor.raw, bytes.baseAddress! + outputSentCount, bytes.count - outputSentCount, Int32(MSG_NOSIGNAL))
            }
            if sent < 0, errno == EINTR { continue }
            guard sent >= 0 else {
                if errno != EAGAIN { isBroken = true }
                return
            }
            outputSentCount += sent
        }
        output.removeAll(keepingCapacity: output.count <= Self.outputBytesMax)
        outputSentCount = 0
    }
}
