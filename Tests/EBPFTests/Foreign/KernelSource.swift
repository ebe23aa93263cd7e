import Foundation

@testable import EBPF

/// XDP programs of the kernel's own selftests and samples, out of Debian's linux-source-6.12, compiled here. Unpacked
/// once into .build; objects are made anew by each test run.
enum KernelSource {
    struct Missing: Error, CustomStringConvertible { let description: String }

    private static let archive = "/usr/src/linux-source-6.12.tar.xz"
    private static let top = "linux-source-6.12"
    private static let selftests = "tools/testing/selftests/bpf", samples = "samples/bpf"
    private static let cache = Objects.programs.deletingLastPathComponent().appending(path: ".build/kernel-xdp-source").path
    /// Sources that are linked to others before they load.
    private static let libraries = ["xdp_router_ipv4.bpf.c": "xdp_sample.bpf.c"]

    struct Compiled {
        let name: String
        let path: String?
        /// The compiler's first complaint, where there is no object.
        let complaint: String
    }

    /// Every file of these folders with xdp in its name, or with a section for an XDP program.
    static func compile() throws -> [Compiled] {
        let root = try unpacked()
        let types = try headers(root)
        let sources = try ["\(selftests)/progs", samples].flatMap { folder in
            try FileManager.default.contentsOfDirectory(atPath: "\(root)/\(folder)").sorted()
                .filter { $0.hasSuffix(".c") && !$0.hasSuffix("_user.c") && !libraries.values.contains($0) }.map { "\(root)/\(folder)/\($0)" }
                .filter { try URL(filePath: $0).lastPathComponent.contains("xdp") || hasSection($0) }
        }
        guard sources.count > 30 else { throw Missing(description: "\(archive) holds only \(sources.count) XDP programs") }
        let flags = ["-mcpu=v3", "-Wno-everything", "-D__TARGET_ARCH_x86", "-DENABLE_ATOMICS_TESTS", "-I\(types)",
                     "-I\(root)/\(selftests)", "-I\(root)/\(selftests)/progs", "-I\(root)/\(samples)", "-I\(types)/lib",
                     "-I\(root)/tools/include/uapi", "-I/usr/include/bpf", "-I/usr/include"]
        return sources.map { source in
            let name = URL(filePath: source).lastPathComponent
            // Samples take the kernel's short names for granted.
            let short = source.contains("/\(samples)/") && source.hasSuffix("_kern.c") ? ["-include", "\(types)/short.h"] : []
            do {
                var path = try Objects.compile(at: source, flags: short + flags)
                if let library = libraries[name] {
                    let other = try Objects.compile(at: URL(filePath: source).deletingLastPathComponent().appending(path: library).path, flags: flags)
                    try run("/usr/sbin/bpftool", ["gen", "object", path + ".linked", path, other])
                    path += ".linked"
                }
                return Compiled(name: name, path: path, complaint: "")
            } catch {
                return Compiled(name: name, path: nil, complaint: "\(error)".split(separator: "\n").first { $0.contains("error:") }.map(String.init) ?? "\(error)")
            }
        }
    }

    private static func hasSection(_ path: String) throws -> Bool {
        let text = String(decoding: try Objects.bytes(path), as: UTF8.self)
        return text.contains("SEC(\"xdp") || text.contains("SEC(\"?xdp")
    }

    private static func unpacked() throws -> String {
        let final = "\(cache)/\(top)"
        if FileManager.default.fileExists(atPath: final) { return final }
        guard FileManager.default.fileExists(atPath: archive) else { throw Missing(description: "\(archive) is missing: install linux-source-6.12") }
        let own = "\(cache)/\(ProcessInfo.processInfo.processIdentifier)"
        try FileManager.default.createDirectory(atPath: own, withIntermediateDirectories: true)
        try run("/usr/bin/tar", ["xJf", archive, "-C", own, "--wildcards", "--no-wildcards-match-slash"]
            + ["\(selftests)/progs/*.[ch]", "\(selftests)/*.h", "\(samples)/*.[ch]", "tools/lib/bpf/*.h",
               "tools/include/linux/*.h", "tools/include/uapi/linux/*.h"].map { "\(top)/\($0)" })
        // Whoever comes first: the others' copies go.
        if unsafe rename("\(own)/\(top)", final) != 0 && !FileManager.default.fileExists(atPath: final) { throw Missing(description: "cannot unpack \(archive)") }
        try? FileManager.default.removeItem(atPath: own)
        return final
    }

    /// What the programs include besides: the running kernel's types, libbpf's headers under their usual name.
    private static func headers(_ root: String) throws -> String {
        let folder = Objects.scratch + "/kernel-headers"
        try FileManager.default.createDirectory(atPath: folder + "/lib/uapi", withIntermediateDirectories: true)
        try run("/usr/sbin/bpftool", ["btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"], output: folder + "/vmlinux.h")
        for (name, target) in [("bpf", "\(root)/tools/lib/bpf"), ("uapi/linux", "/usr/include/linux")] {
            try? FileManager.default.createSymbolicLink(atPath: "\(folder)/lib/\(name)", withDestinationPath: target)
        }
        try """
            #include <linux/types.h>
            #include <linux/in.h>
            #include <linux/tcp.h>
            #include <linux/udp.h>
            #define __force
            #define AF_INET 2
            #define AF_INET6 10
            #define htons(x) ((__be16)__builtin_bswap16(x))
            #define ntohs(x) __builtin_bswap16(x)
            #define cpu_to_be32(x) ((__be32)__builtin_bswap32(x))
            #define max(x, y) ((x) > (y) ? (x) : (y))
            #define memcpy __builtin_memcpy
            #define memset __builtin_memset
            typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
            typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
            """.write(toFile: folder + "/short.h", atomically: true, encoding: .utf8)
        return folder
    }

    private static func run(_ tool: String, _ arguments: [String], output: String? = nil) throws {
        let process = Process()
        process.executableURL = URL(filePath: tool)
        process.arguments = arguments
        if let output {
            _ = FileManager.default.createFile(atPath: output, contents: nil)
            process.standardOutput = FileHandle(forWritingAtPath: output)
        }
        process.standardError = FileHandle.nullDevice
        do { try process.run() } catch { throw Missing(description: "\(tool) does not run: 'make deps' installs it") }
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Missing(description: "\(tool) \(arguments.first ?? "") failed") }
    }
}
