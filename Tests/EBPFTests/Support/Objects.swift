import Foundation

@testable import EBPF

/// BPF objects for tests, compiled on the spot.
enum Objects {
    struct Failed: Error, CustomStringConvertible { let description: String }

    static let programs = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("programs")

    /// One of the project's own programs, e.g. "nat".
    static func program(_ name: String) throws -> String {
        try compile(at: programs.appendingPathComponent("\(name).bpf.c").path)
    }

    static let fixtures = programs.deletingLastPathComponent().appendingPathComponent("Tests/Fixtures")

    /// One of the programs for the analysis, e.g. "nat_port".
    static func fixture(_ name: String) throws -> String {
        try compile(at: fixtures.appendingPathComponent("analysis/\(name).bpf.c").path)
    }

    /// C text behind the usual includes.
    static func source(_ text: String, flags: [String] = []) throws -> String {
        let path = scratch + "/\(UUID().uuidString).bpf.c"
        try ("#include \"parse.h\"\n#line 1 \"test.bpf.c\"\n" + text + "\nchar _license[] SEC(\"license\") = \"GPL\";\n")
            .write(toFile: path, atomically: true, encoding: .utf8)
        return try compile(at: path, flags: flags)
    }

    static func bytes(_ path: String) throws -> [UInt8] { try Array(Data(contentsOf: URL(fileURLWithPath: path))) }

    static func write(_ bytes: [UInt8]) throws -> String {
        let path = scratch + "/\(UUID().uuidString).o"
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return path
    }

    /// Goes when the tests end.
    static let scratch: String = {
        let path = NSTemporaryDirectory() + "apus-ebpf-tests-\(getpid())"
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        atexit { try? FileManager.default.removeItem(atPath: NSTemporaryDirectory() + "apus-ebpf-tests-\(getpid())") }
        return path
    }()

    /// The clang beside `swift` has the BPF target; the system's may not.
    private static let clang: String? = {
        let directories = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
        for directory in directories where FileManager.default.isExecutableFile(atPath: directory + "/swift") {
            let beside = URL(fileURLWithPath: directory + "/swift").resolvingSymlinksInPath().deletingLastPathComponent()
                .appendingPathComponent("clang").path
            if FileManager.default.isExecutableFile(atPath: beside) { return beside }
        }
        return directories.map { $0 + "/clang" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }()

    static func compile(at path: String, flags: [String] = []) throws -> String {
        guard let clang else { throw Failed(description: "no clang beside swift and none in PATH") }
        let output = scratch + "/\(UUID().uuidString).bpf.o"
        var system = utsname()
        _ = unsafe uname(&system)
        let machine = unsafe withUnsafeBytes(of: &system.machine) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: clang)
        process.arguments = ["-target", "bpf", "-O2", "-g", "-D__\(machine)__", "-I", programs.path, "-isystem", "/usr/include/\(machine)-linux-gnu"]
            + flags + ["-c", path, "-o", output]
        // A file, not a pipe: Foundation (Swift 6.3) traps when another child's end interrupts its read of a pipe.
        FileManager.default.createFile(atPath: output + ".log", contents: nil)
        process.standardError = FileHandle(forWritingAtPath: output + ".log")
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw Failed(description: try String(contentsOfFile: output + ".log", encoding: .utf8))
        }
        return output
    }
}
