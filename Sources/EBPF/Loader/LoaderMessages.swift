internal import Foundation
internal import Glibc

/// What the loader process is asked and what it answers, each as a length of 4 bytes and a property list.
struct LoadRequest: Codable {
    let object: String
    let program: String?
    let verify: Verification
    let entries: [String: Int]
}

/// The programs, the one asked for first; or why there are none.
enum LoadReply: Codable {
    case programs([PlainProgram])
    case refused(LoadError)
}

/// A linked program without the object it came from: instructions, maps, and the source line of each instruction.
struct PlainProgram: Codable {
    let object: String
    let name: String
    let section: String
    let instructions: Data
    let maps: [MapDefinition]
    let files: [String]
    /// For each instruction, its file's place in `files` and the line; -1 where the object does not say.
    let lines: [Int32]
    let kernelFunctions: [Int: String]
    let absent: [Int: String]
    let stubs: Set<String>

    init(_ linked: LinkedProgram) {
        object = linked.object.name
        name = linked.program.name
        section = linked.section
        instructions = Data(linked.instructions.flatMap(\.encoded))
        maps = linked.maps
        kernelFunctions = linked.kernelFunctions
        absent = linked.absent
        stubs = linked.stubs
        var files: [String] = [], places: [String: Int32] = [:], lines: [Int32] = []
        for index in linked.instructions.indices {
            guard let source = linked.source(index) else {
                lines += [-1, 0]
                continue
            }
            let place = places[source.file] ?? Int32(files.count)
            if places[source.file] == nil {
                places[source.file] = place
                files.append(source.file)
            }
            lines += [place, Int32(clamping: source.line)]
        }
        self.files = files
        self.lines = lines
    }

    func linked() throws(LoadError) -> LinkedProgram {
        let view = ByteView(Array(instructions))
        var code: [Instruction] = []
        do throws(Malformed) {
            for at in stride(from: 0, to: instructions.count, by: 8) { code.append(try Instruction(view, at: at)) }
        } catch {
            throw LoadError(.malformed, object: object, program: name, "the loader process answered nonsense: \(error.message)")
        }
        let sources: [SourceLine?] = stride(from: 0, to: lines.count - 1, by: 2).map { at in
            files.indices.contains(Int(lines[at])) ? SourceLine(file: files[Int(lines[at])], line: Int(lines[at + 1])) : nil
        }
        return LinkedProgram(object: object, name: name, section: section, instructions: code, maps: maps, sources: sources,
                             kernelFunctions: kernelFunctions, absent: absent, stubs: stubs)
    }
}

/// Messages over a stream socket.
enum LoaderWire {
    /// An object has at most a million instructions; with lines and maps that stays far below.
    static let bytesMax = 1 << 28

    static func send(_ message: some Encodable, to descriptor: Int32) -> Bool {
        let encoder = PropertyListEncoder()
        encoder.outputFormat = .binary
        guard let body = try? encoder.encode(message) else { return false }
        return write(body, to: descriptor)
    }

    static func write(_ body: Data, to descriptor: Int32) -> Bool {
        var whole = Data(capacity: body.count + 4)
        for shift in [0, 8, 16, 24] { whole.append(UInt8(truncatingIfNeeded: body.count >> shift)) }
        whole.append(body)
        var sent = 0
        while sent < whole.count {
            let n = unsafe whole.withUnsafeBytes { unsafe Glibc.send(descriptor, $0.baseAddress.unsafelyUnwrapped + sent, whole.count - sent, Int32(MSG_NOSIGNAL)) }
            if n < 0 && errno == EINTR { continue }
            if n <= 0 { return false }
            sent += n
        }
        return true
    }

    /// Nil at the end of the stream, and for anything that is no message.
    static func receive(from descriptor: Int32) -> Data? {
        guard let header = read(4, from: descriptor) else { return nil }
        let count = header.reversed().reduce(0) { $0 << 8 | Int($1) }
        return count <= bytesMax ? read(count, from: descriptor) : nil
    }

    private static func read(_ count: Int, from descriptor: Int32) -> Data? {
        var data = Data(count: count)
        var at = 0
        while at < count {
            let n = unsafe data.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress.unsafelyUnwrapped + at, count - at) }
            if n < 0 && errno == EINTR { continue }
            if n <= 0 { return nil }
            at += n
        }
        return data
    }

    static func decode<Message: Decodable>(_: Message.Type, _ data: Data) -> Message? {
        try? PropertyListDecoder().decode(Message.self, from: data)
    }
}
