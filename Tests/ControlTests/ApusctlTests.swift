import Foundation
import Synchronization
import Testing

@testable import Control

/// The program itself, against a socket of this process.
@Suite(.timeLimit(.minutes(10))) final class ApusctlTests {
    let directory = FileManager.default.temporaryDirectory.appending(path: "apus-\(UUID().uuidString.prefix(8))").path
    var path: String { "\(directory)/a.sock" }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    private func run(_ arguments: [String]) throws -> (status: Int32, output: String, errors: String) {
        let process = Process()
        // SwiftPM puts the test program and the products side by side.
        process.executableURL = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: "apusctl")
        process.arguments = arguments
        let (output, errors) = (Pipe(), Pipe())
        (process.standardOutput, process.standardError) = (output, errors)
        try process.run()
        // Both are short, so neither pipe fills while the other is read.
        let words = [output, errors].map { String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self) }
        process.waitUntilExit()
        return (process.terminationStatus, words[0], words[1])
    }

    private func serve(_ reply: @escaping ControlSocket.Command) throws -> ControlSocket {
        try ControlSocket(path: path, commands: ["stats": reply])
    }

    @Test func statsAreATableOrTheDaemonsOwnLine() throws {
        var port = PortStats()
        (port.index, port.rxPackets) = (65536, 7)
        let stats = StatsDocument(ports: ["vm0": port])
        let server = try serve { _ in stats.json }
        let table = try run(["-s", path, "stats"])
        #expect(table == (0, StatsTable.totals(stats), ""))
        #expect(try run(["stats", "--json", "-s", path]) == (0, String(decoding: stats.json, as: UTF8.self) + "\n", ""))
        server.stop()
    }

    @Test func whatCannotBeAskedIsOneSentenceAndStatusOne() throws {
        #expect(try run(["-s", path, "stats"])
            == (1, "", "apusctl: There is no socket \(path): start apus, or name its stats-socket with -s.\n"))
        let refusing = try serve { _ throws(CommandError) in throw CommandError("not now") }
        #expect(try run(["-s", path, "stats"]) == (1, "", "apusctl: The daemon refused: not now.\n"))
        refusing.stop()
        let foreign = try serve { _ in Data("[1]".utf8) }
        #expect(try run(["-s", path, "stats"])
            == (1, "", "apusctl: The reply is no stats document: is this apusctl of the daemon's version?\n"))
        foreign.stop()
    }

    @Test func watchingEndsWithTheDaemon() throws {
        let count = Counter()
        let server = try serve { _ throws(CommandError) in
            if count.next() == 3 { throw CommandError("stopping") }
            return StatsDocument().json
        }
        let watched = try run(["-s", path, "stats", "--watch", "0.1"])
        #expect(watched.status == 1 && watched.errors == "apusctl: The daemon refused: stopping.\n")
        #expect(watched.output.contains("rx pkt/s"))
        server.stop()
    }

    @Test(arguments: [["bogus"], ["stats", "3"], ["stats", "--watch", "0"], ["stats", "--watch", "nan"], ["stats", "--jsn"]])
    func aWrongCommandLineIsStatusTwo(arguments: [String]) throws {
        let result = try run(arguments)
        #expect(result.status == 2 && result.output.isEmpty && result.errors.hasPrefix("Error: "))
    }

    private final class Counter: Sendable {
        private let value = Mutex(0)
        func next() -> Int { value.withLock { $0 += 1; return $0 } }
    }
}
