internal import CBPF
internal import Foundation
internal import Glibc

/// The loader process: opens, relocates and verifies objects, and keeps the privileges for it. Each request is served
/// by a child of its own, so that a crash in a parser costs one answer and no more.
public enum LoaderServer {
    /// An object that takes longer has sent a parser in a circle. Verifying the largest known takes a second.
    static let secondsMax: UInt32 = 120

    /// Serves until the other end closes.
    public static func run(socket: Int32) {
        while let message = LoaderWire.receive(from: socket) {
            guard let request = LoaderWire.decode(LoadRequest.self, message) else { return }
            guard let answer = answer(request) else { return }
            guard LoaderWire.write(answer, to: socket) else { return }
        }
    }

    private static func answer(_ request: LoadRequest) -> Data? {
        var ends: [Int32] = [0, 0]
        guard unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0 else { return nil }
        let child = apus_fork()
        if child == 0 {
            close(ends[0])
            alarm(secondsMax)
            exit(LoaderWire.send(reply(to: request), to: ends[1]) ? 0 : 1)
        }
        close(ends[1])
        defer { close(ends[0]) }
        let answer = child < 0 ? nil : LoaderWire.receive(from: ends[0])
        var status: Int32 = 0
        if child > 0 { unsafe waitpid(child, &status, 0) }
        if let answer { return answer }
        let signal = status & 0x7f
        let what = child < 0 ? "no process could be started for it" : signal == SIGALRM ? "it kept the loader busy for \(secondsMax) seconds"
            : signal != 0 ? "it crashed the loader (signal \(signal)): the object is damaged" : "the loader gave no answer"
        let error = LoadError(.refused, object: request.object, program: request.program, what)
        let encoder = PropertyListEncoder()
        encoder.outputFormat = .binary
        return try? encoder.encode(LoadReply.refused(error))
    }

    private static func reply(to request: LoadRequest) -> LoadReply {
        do throws(LoadError) {
            let programs = try ProgramLoader.prepare(object: request.object, program: request.program, verify: request.verify, entries: request.entries)
            return .programs(programs.map(PlainProgram.init))
        } catch {
            return .refused(error)
        }
    }
}
