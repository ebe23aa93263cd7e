import Foundation
import Glibc
import Synchronization
import Testing

@testable import Control

/// A raw client, as rude as a test needs it.
final class Peer {
    let descriptor: Descriptor
    private var input: [UInt8] = []

    init(_ path: String, timeoutMilliseconds: Int32 = 5000) throws {
        descriptor = try UnixSocket.connect(path, timeoutMilliseconds: timeoutMilliseconds)
    }

    func send(_ text: String) { send(Array(text.utf8)) }

    /// As much as goes at once.
    @discardableResult
    func send(_ bytes: [UInt8]) -> Int {
        unsafe bytes.withUnsafeBytes { unsafe Glibc.send(descriptor.raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    }

    func finishWriting() { shutdown(descriptor.raw, Int32(SHUT_WR)) }

    /// Up to a newline, or nil at the end or after five seconds.
    func line() -> String? {
        while true {
            if let end = input.firstIndex(of: 0x0A) {
                defer { input.removeSubrange(...end) }
                return String(decoding: input[..<end], as: UTF8.self)
            }
            var polled = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
            var chunk = [UInt8](repeating: 0, count: 1 << 16)
            guard unsafe poll(&polled, 1, 5000) == 1 else { return nil }
            let count = unsafe chunk.withUnsafeMutableBytes { unsafe recv(descriptor.raw, $0.baseAddress, $0.count, 0) }
            guard count > 0 else { return nil }
            input += chunk[..<count]
        }
    }

    func ask(_ text: String) -> String? {
        send("\(text)\n")
        return line()
    }
}

@Suite(.timeLimit(.minutes(10))) final class ControlSocketTests {
    let directory = FileManager.default.temporaryDirectory.appending(path: "apus-\(UUID().uuidString.prefix(8))").path
    var path: String { "\(directory)/a.sock" }

    static let commands: [String: ControlSocket.Command] = [
        "echo": { words in ControlReply.json(words.map(String.init)) },
        "big": { _ in ControlReply.json(String(repeating: "x", count: 100_000)) },
        "fail": { _ throws(CommandError) in throw CommandError("no \"luck\"") },
        "lines": { _ in Data("[1,\n2]".utf8) },
    ]

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    private func serve() throws -> ControlSocket { try ControlSocket(path: path, commands: Self.commands) }

    @Test func commandsAreAnswered() throws {
        let server = try serve()
        var client = try ControlClient(path: path)
        func ask(_ line: String) throws -> String { String(decoding: try client.request(line), as: UTF8.self) }
        #expect(try ask("echo a  b\tc") == #"["a","b","c"]"#)
        #expect(try ask("echo\r") == "[]")
        #expect(try ask("fail") == #"{"error":"no \"luck\""}"#)
        #expect(try ask("lines") == "[1, 2]")
        #expect(try ask("help") == #"{"commands":["big","echo","fail","help","lines"]}"#)
        #expect(try ask("ecko") == #"{"error":"unknown command 'ecko'; did you mean 'echo'? allowed: big, echo, fail, help, lines"}"#)
        #expect(try ask("  ") == #"{"error":"the line is empty; 'help' lists the commands"}"#)
        server.stop()
    }

    @Test func linesMayComeInPiecesAndTogether() throws {
        let server = try serve()
        let peer = try Peer(path)
        for byte in Array("echo 1\necho 2\n".utf8) {
            peer.send([byte])
            usleep(1000)
        }
        #expect(peer.line() == #"["1"]"#)
        #expect(peer.line() == #"["2"]"#)
        // More than one turn's worth in one piece, in order.
        peer.send((0..<200).map { "echo \($0)\n" }.joined())
        for number in 0..<200 { #expect(peer.line() == #"["\#(number)"]"#) }
        server.stop()
    }

    @Test func theEndOfInputEndsALine() throws {
        let server = try serve()
        let peer = try Peer(path)
        peer.send("echo 1\necho last")
        peer.finishWriting()
        #expect(peer.line() == #"["1"]"#)
        #expect(peer.line() == #"["last"]"#)
        #expect(peer.line() == nil)
        server.stop()
    }

    @Test func aLineTooLongEndsTheClientOnly() throws {
        let server = try serve()
        let rude = try Peer(path), polite = try Peer(path)
        rude.send(String(repeating: "x", count: 5000))
        #expect(rude.line() == #"{"error":"a command line has at most 4096 bytes"}"#)
        #expect(rude.line() == nil)
        // The longest that is allowed.
        #expect(polite.ask("echo " + String(repeating: "y", count: 4090)) == #"[""# + String(repeating: "y", count: 4090) + #""]"#)
        server.stop()
    }

    @Test func bytesThatAreNoTextAreAnswered() throws {
        let server = try serve()
        let peer = try Peer(path)
        peer.send([0xFF, 0x00, 0x1B, 0x0A])
        #expect(peer.line() == #"{"error":"unknown command '�\\u{0}\\u{1b}'; allowed: big, echo, fail, help, lines"}"#)
        server.stop()
    }

    @Test func aSlowReaderHoldsUpNobodyAndLosesNothing() throws {
        let server = try serve()
        let slow = try Peer(path), quick = try Peer(path)
        // Asks for 6 MB and reads nothing: far more than both sockets and the server hold.
        var askedCount = 0
        for _ in 0..<60 where slow.send(Array("big\n".utf8)) == 4 { askedCount += 1 }
        for _ in 0..<100 { #expect(quick.ask("echo here") == #"["here"]"#) }
        for _ in 0..<askedCount { #expect(slow.line()?.utf8.count == 100_002) }
        #expect(slow.ask("echo done") == #"["done"]"#)
        server.stop()
    }

    @Test func whatASlowReaderHoldsIsBounded() throws {
        var ends: [Int32] = [-1, -1]
        #expect(unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        let connection = ControlConnection(Descriptor(owning: ends[0])), peer = Descriptor(owning: ends[1])
        #expect(UnixSocket.makeNonblocking(ends[0]))
        let replyBytes = 10_000
        for _ in 0..<200 {
            _ = unsafe send(peer.raw, "x\n", 2, Int32(MSG_DONTWAIT))
            if connection.events & Int16(POLLIN) != 0 { connection.receive() }
            connection.advance { _ in Data(repeating: 0x20, count: replyBytes) }
            #expect(connection.outputPendingCount <= ControlConnection.outputBytesMax + replyBytes)
        }
        #expect(connection.outputPendingCount >= ControlConnection.outputBytesMax)
        // What waits is the client's own input, in the kernel: the server reads no more of it.
        #expect(connection.events == Int16(POLLOUT) && !connection.isReady)
    }

    @Test func clientsThatVanishAreForgotten() throws {
        let server = try serve()
        for round in 0..<300 {
            let peer = try Peer(path)
            peer.send(round % 3 == 0 ? "" : round % 3 == 1 ? "big\nbig\nbi" : "echo")
        }
        #expect(try Peer(path).ask("echo alive") == #"["alive"]"#)
        server.stop()
    }

    @Test func silentClientsShutNobodyOut() throws {
        let server = try serve()
        let talking = try Peer(path)
        #expect(talking.ask("echo 1") == #"["1"]"#)
        var silent: [Peer] = []
        for _ in 0..<(3 * ControlServer.clientCountMax) {
            silent.append(try Peer(path))
            #expect(talking.ask("echo 2") == #"["2"]"#)
        }
        #expect(try Peer(path).ask("echo 3") == #"["3"]"#)
        // The longest silent made room.
        #expect(silent[0].line() == nil)
        server.stop()
    }

    @Test func manyClientsAtOnce() async throws {
        let server = try serve()
        let path = path
        try await withThrowingTaskGroup(of: Int.self) { group in
            for task in 0..<16 {
                group.addTask {
                    let peer = try Peer(path)
                    return (0..<50).count { peer.ask("echo \(task) \($0)") == #"["\#(task)","\#($0)"]"# }
                }
            }
            for try await answeredCount in group { #expect(answeredCount == 50) }
        }
        server.stop()
    }

    @Test func theFileIsForOwnerAndGroupAndGoesWithTheServer() throws {
        let server = try serve()
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        #expect(attributes[.posixPermissions] as? Int == 0o660)
        let peer = try Peer(path)
        server.stop()
        server.stop()
        #expect(peer.line() == nil)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == [])
        _ = try serve()
    }

    @Test func aCommandMayStopItsServer() throws {
        let box = Box()
        let server = try ControlSocket(path: path, commands: ["stop": { _ in
            box.value.withLock { $0?.stop() }
            return Data("{}".utf8)
        }])
        box.value.withLock { $0 = server }
        #expect(try Peer(path).ask("stop") == "{}")
        box.value.withLock { $0 = nil }
    }

    private final class Box: Sendable {
        let value = Mutex<ControlSocket?>(nil)
    }

    @Test func theThreadStartsWhereItIsTold() throws {
        let caller = pthread_self()
        let started = DispatchSemaphore(value: 0)
        let server = try ControlSocket(path: path, commands: [:]) {
            #expect(pthread_equal(pthread_self(), caller) == 0)
            started.signal()
        }
        #expect(started.wait(timeout: .now() + 5) == .success)
        server.stop()
    }

    @Test(arguments: ["", String(repeating: "p", count: 108), "a\0b"])
    func pathsThatCannotBeAreRefused(path: String) {
        #expect(throws: SocketError.self) { try ControlSocket(path: path, commands: [:]) }
    }

    @Test func clientsSayWhatIsWrong() throws {
        #expect(throws: SocketError(description: "There is no socket \(path): start apus, or name its stats-socket with -s.")) {
            _ = try ControlClient(path: path)
        }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let listener = try UnixSocket.listen(path)
        // Listens and never answers.
        var client = try ControlClient(path: path, timeoutMilliseconds: 50)
        #expect(throws: SocketError(description: "\(path) does not answer within 50 ms: is it a stats-socket?")) {
            _ = try client.request("stats")
        }
        _ = consume listener
        #expect(throws: SocketError(description: "No daemon answers on \(path): start apus, or name its stats-socket with -s.")) {
            _ = try ControlClient(path: path)
        }
    }
}
