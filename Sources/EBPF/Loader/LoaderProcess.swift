internal import Foundation
internal import Glibc
internal import Synchronization

/// The loader process, seen from the one that runs the programs. Start it before giving up privileges.
public final class LoaderProcess: Sendable {
    private struct State {
        var socket: Int32
        var process: pid_t
    }

    private let state: Mutex<State>

    /// The executable beside the running one.
    public static var defaultExecutable: String {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
        return URL(filePath: own).deletingLastPathComponent().appending(path: "apus-loader").path
    }

    public init(executable: String = LoaderProcess.defaultExecutable) throws(LoadError) {
        var ends: [Int32] = [0, 0]
        // Neither end reaches other programs started from here.
        guard unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw LoadError(.unavailable, object: executable, "cannot talk to a loader process (error \(errno))")
        }
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawn_file_actions_adddup2(&actions, ends[1], 0)
        var process: pid_t = 0
        let arguments: [UnsafeMutablePointer<CChar>?] = unsafe [strdup(executable), nil]
        let error = unsafe posix_spawn(&process, executable, &actions, nil, arguments, environ)
        unsafe posix_spawn_file_actions_destroy(&actions)
        unsafe free(arguments[0])
        close(ends[1])
        guard error == 0 else {
            close(ends[0])
            throw LoadError(.unavailable, object: executable, "cannot be started (error \(error)): it belongs beside the program that loads")
        }
        state = Mutex(State(socket: ends[0], process: process))
    }

    /// The process ends when it sees the other end closed.
    deinit {
        state.withLock {
            close($0.socket)
            waitpid($0.process, nil, 0)
        }
    }

    /// For tests, which look at what it holds.
    var identifier: pid_t { state.withLock { $0.process } }

    /// As `ProgramLoader.load`, but opened, relocated and verified over there.
    public func load(object path: String, program name: String?, verify: Verification, entries: [String: Int] = [:]) throws(LoadError) -> LoadedProgram {
        // The other process may stand in another directory.
        let absolute = path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
        let request = LoadRequest(object: absolute, program: name, verify: verify, entries: entries)
        let reply = state.withLock { state -> LoadReply? in
            guard LoaderWire.send(request, to: state.socket), let data = LoaderWire.receive(from: state.socket) else { return nil }
            return LoaderWire.decode(LoadReply.self, data)
        }
        switch reply {
        case .programs(let programs):
            var linked: [LinkedProgram] = []
            for program in programs { linked.append(try program.linked()) }
            guard let first = linked.first else { throw LoadError(.refused, object: path, program: name, "the loader process answered nothing") }
            return try ProgramSet(first.object, isSandboxed: verify == .sandbox).load(linked)
        case .refused(let error): throw error
        case nil: throw LoadError(.unavailable, object: path, program: name, "the loader process is gone")
        }
    }
}
