import EBPF
import Foundation

/// BPF programs compiled on the spot, and loaded with the kernel's blessing.
enum Programs {
    struct Failed: Error, CustomStringConvertible { let description: String }

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// Every program the engine can run: the project's own and those of the analysis' fixtures.
    static let all: [String] = {
        let fixtures = root.appendingPathComponent("Tests/Fixtures/analysis"), programs = root.appendingPathComponent("programs")
        return [fixtures, programs].flatMap { folder in
            ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).filter { $0.hasSuffix(".bpf.c") }.sorted()
                .map { folder.appendingPathComponent($0).path }
        }
    }()

    /// Programs that keep times, or cookies that change with the minute: two runs agree only where they share a clock.
    static func dependsOnTime(_ path: String) -> Bool { ["masquerade", "synproxy"].contains { path.contains("/\($0)") } }

    private static let scratch: String = {
        let path = NSTemporaryDirectory() + "apus-dataplane-tests-\(getpid())"
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        atexit { try? FileManager.default.removeItem(atPath: NSTemporaryDirectory() + "apus-dataplane-tests-\(getpid())") }
        return path
    }()

    static func named(_ name: String) throws -> String {
        guard let path = all.first(where: { $0.hasSuffix("/\(name).bpf.c") }) else { throw Failed(description: "no program \(name)") }
        return try compile(path)
    }

    static func compile(_ path: String) throws -> String {
        let directories = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
        // The clang beside `swift` has the BPF target; the system's may not.
        let beside = directories.filter { FileManager.default.isExecutableFile(atPath: $0 + "/swift") }.map {
            URL(fileURLWithPath: $0 + "/swift").resolvingSymlinksInPath().deletingLastPathComponent().path
        }
        guard let clang = (beside + directories).map({ $0 + "/clang" }).first(where: FileManager.default.isExecutableFile) else {
            throw Failed(description: "no clang beside swift and none in PATH")
        }
        let output = scratch + "/\(UUID().uuidString).bpf.o"
        #if arch(x86_64)
        let machine = "x86_64"
        #else
        let machine = "aarch64"
        #endif
        let process = Process()
        process.executableURL = URL(fileURLWithPath: clang)
        process.arguments = ["-target", "bpf", "-O2", "-g", "-D__\(machine)__", "-I", root.appendingPathComponent("programs").path,
                             "-isystem", "/usr/include/\(machine)-linux-gnu", "-c", path, "-o", output]
        let messages = Pipe()
        process.standardError = messages
        try process.run()
        let text = messages.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Failed(description: String(decoding: text, as: UTF8.self)) }
        return output
    }

    /// Nil: the engine cannot run it yet.
    static func load(_ object: String) throws -> LoadedProgram? {
        do {
            return try ProgramLoader.load(object: object, program: nil, verify: .kernel)
        } catch {
            guard error.kind == .unsupported || error.kind == .noSuchProgram else { throw error }
            return nil
        }
    }
}
