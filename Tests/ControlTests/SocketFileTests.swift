import Foundation
import Glibc
import Testing

@testable import Control

/// Whose the file of a socket is: a daemon replaces what a dead one left, and nothing else.
@Suite(.timeLimit(.minutes(10))) final class SocketFileTests {
    let directory = FileManager.default.temporaryDirectory.appending(path: "apus-\(UUID().uuidString.prefix(8))").path
    var path: String { "\(directory)/a.sock" }

    init() throws { try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true) }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    private func serve() throws -> ControlSocket { try ControlSocket(path: path, commands: ControlSocketTests.commands) }

    private func refusal() -> String? {
        #expect(throws: SocketError.self) { try serve() }?.description
    }

    @Test func aStaleFileIsReplaced() throws {
        do { _ = try UnixSocket.listen(path) }
        #expect(FileManager.default.fileExists(atPath: path))
        let server = try serve()
        #expect(try Peer(path).ask("echo new") == #"["new"]"#)
        server.stop()
    }

    @Test func aLiveSocketAndAForeignFileAreRefused() throws {
        let server = try serve()
        #expect(throws: SocketError(description: "\(path) is in use by a running program; stop that or choose another path")) {
            try ControlSocket(path: path, commands: [:])
        }
        #expect(try Peer(path).ask("echo still") == #"["still"]"#)
        server.stop()
        #expect(FileManager.default.createFile(atPath: path, contents: Data("mine".utf8)))
        #expect(throws: SocketError(description: "\(path) exists and is no socket; remove it or choose another path")) {
            try ControlSocket(path: path, commands: [:])
        }
        #expect(FileManager.default.contents(atPath: path) == Data("mine".utf8))
    }

    @Test func aServerLeavesAnothersFileAlone() throws {
        let first = try serve()
        #expect(unsafe unlink(path) == 0)
        let second = try serve()
        first.stop()
        #expect(try Peer(path).ask("echo second") == #"["second"]"#)
        second.stop()
    }

    @Test func ofManyStartingTogetherOneWins() async throws {
        do { _ = try UnixSocket.listen(path) }
        let path = path
        let servers = await withTaskGroup(of: ControlSocket?.self) { group in
            for _ in 0..<8 { group.addTask { try? ControlSocket(path: path, commands: ControlSocketTests.commands) } }
            return await group.reduce(into: [ControlSocket]()) { servers, server in server.map { servers.append($0) } }
        }
        #expect(servers.count == 1)
        // Optimised code lets a server go, and with it the socket, after its last use.
        #expect(try Peer(path).ask("echo one") == #"["one"]"#)
        withExtendedLifetime(servers) {}
    }

    @Test func aListenerWithAFullBacklogIsAlive() throws {
        let listener = try UnixSocket.listen(path)
        var callers: [Peer] = []
        while let caller = try? Peer(path, timeoutMilliseconds: 0) { callers.append(caller) }
        #expect(refusal() == "\(path) is in use by a running program; stop that or choose another path")
        withExtendedLifetime(listener) {}
    }

    @Test func aSocketOfAnotherKindIsNotReplaced() throws {
        let datagram = Descriptor(owning: socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0))
        #expect(unsafe UnixSocket.withAddress(path, { unsafe bind(datagram.raw, $0, $1) }) == 0)
        #expect(refusal() == "\(path) may be in use (protocol wrong type for socket); remove it or choose another path")
        #expect(FileManager.default.fileExists(atPath: path))
    }

    /// Two daemons that start together must not both find the file stale.
    @Test func onlyOneLooksAtATime() throws {
        let other = Descriptor(owning: unsafe open(directory, O_RDONLY | O_DIRECTORY))
        #expect(flock(other.raw, LOCK_EX) == 0)
        #expect(refusal() == "\(directory) is locked by another program; try again")
        #expect(flock(other.raw, LOCK_UN) == 0)
        _ = try serve()
    }
}
