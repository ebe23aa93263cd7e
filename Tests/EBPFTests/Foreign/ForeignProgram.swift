import Foundation

@testable import EBPF

/// An XDP program that somebody else wrote.
struct ForeignProgram: CustomStringConvertible {
    /// Of the object: its file's name, or the tool's that embeds it.
    let origin: String
    let path: String
    let name: String

    var description: String { "\(origin) \(name)" }

    /// Debian's: every XDP program of libxdp1's objects, and of those embedded in xdp-bench and xdp-trafficgen.
    static func packaged() throws -> [ForeignProgram] {
        var objects: [(String, String)] = []
        for directory in ["/usr/lib/\(machine)-linux-gnu/bpf", "/usr/lib/bpf"] {
            for name in ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted() where name.hasSuffix(".o") {
                objects.append((name, "\(directory)/\(name)"))
            }
        }
        for tool in ["xdp-bench", "xdp-trafficgen"] where FileManager.default.fileExists(atPath: "/usr/sbin/\(tool)") {
            objects += try embedded(in: "/usr/sbin/\(tool)").map { (tool, $0) }
        }
        return try programs(of: objects)
    }

    static func programs(of objects: [(origin: String, path: String)]) throws -> [ForeignProgram] {
        var seen: Set<String> = [], programs: [ForeignProgram] = []
        for (origin, path) in objects {
            guard let object = try? ObjectFile(name: path, bytes: try Objects.bytes(path)) else { continue }
            for program in object.programs {
                // The same program in several objects runs once.
                let identity = program.name + "\(program.instructions.flatMap(\.encoded))" + "\(object.maps.map(\.definition.name))"
                if seen.insert(identity).inserted { programs.append(ForeignProgram(origin: origin, path: path, name: program.name)) }
            }
        }
        return programs
    }

    private static var machine: String {
        var system = utsname()
        _ = unsafe uname(&system)
        return unsafe withUnsafeBytes(of: &system.machine) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// BPF objects inside of an executable: each ELF header for machine 247, up to its section headers' end.
    private static func embedded(in tool: String) throws -> [String] {
        let bytes = try Objects.bytes(tool)
        var paths: [String] = [], at = 0
        while at + 64 < bytes.count {
            defer { at += 8 }
            guard bytes[at] == 0x7f, bytes[at + 1] == 0x45, bytes[at + 2] == 0x4c, bytes[at + 3] == 0x46, bytes[at + 18] == 247, bytes[at + 19] == 0 else { continue }
            let table = Int(Asm.word(Array(bytes[(at + 40)..<(at + 48)]), 0)), count = Int(bytes[at + 60]) | Int(bytes[at + 61]) << 8
            guard at + table + count * 64 <= bytes.count else { continue }
            paths.append(try Objects.write(Array(bytes[at..<(at + table + count * 64)])))
        }
        return paths
    }

    /// The object with other constants in it, as tools set them before they load.
    func with(_ constants: [String: [UInt8]]) throws -> String {
        if constants.isEmpty { return path }
        var bytes = try Objects.bytes(path)
        let file = try ELFFile(bytes)
        let table = Int(Asm.word(Array(bytes[40..<48]), 0))
        for (name, value) in constants {
            guard let symbol = file.symbols.first(where: { $0.name == name && $0.type == ELFFile.Symbol.object }) else {
                throw Objects.Failed(description: "\(self) has no variable \(name)")
            }
            let header = table + symbol.section * 64
            let at = Int(Asm.word(Array(bytes[(header + 24)..<(header + 32)]), 0)) + Int(symbol.value)
            guard value.count <= Int(symbol.size) else { throw Objects.Failed(description: "\(self): \(name) has \(symbol.size) bytes") }
            bytes.replaceSubrange(at..<(at + value.count), with: value)
        }
        return try Objects.write(bytes)
    }
}
