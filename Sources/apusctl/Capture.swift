import ArgumentParser
import Control
import Foundation

struct Capture: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write what passes the ports to a pcapng file.",
        discussion: "Each packet is shown at receive and at transmit, with its checksum state as a comment; a dropped one once more, with "
            + "the reason. Ends at SIGINT, SIGTERM, or when the daemon ends.")

    @OptionGroup var daemon: DaemonOptions
    @Option(name: .short, help: "The file, or - for standard output.") var write: String
    @Option(name: .short, help: "Bytes of each packet, at most.") var length = 65_535
    @Option(name: .customShort("c"), help: "End after so many packets.") var count: Int?
    @Argument(help: "Only what passes this port.") var port: String?

    nonisolated(unsafe) static var isInterrupted: sig_atomic_t = 0

    func run() throws {
        let target = write == "-" ? STDOUT_FILENO : unsafe open(write, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard target >= 0 else { throw Failure("\(write) cannot be written: \(unsafe String(cString: strerror(errno))).") }
        for number in [SIGINT, SIGTERM] { _ = signal(number) { _ in unsafe Capture.isInterrupted = 1 } }
        signal(SIGPIPE, SIG_IGN)
        let source = try openFIFO()
        defer { close(source) }
        try copy(from: source, to: target)
    }

    /// The daemon writes into a FIFO that lives only until it has opened it.
    private func openFIFO() throws -> Int32 {
        var template = Array("/tmp/apusctl-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Failure("No directory can be made in /tmp.") }
        let directory = String(decoding: template.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        let path = "\(directory)/capture"
        defer {
            unsafe _ = unlink(path)
            unsafe _ = rmdir(directory)
        }
        guard unsafe mkfifo(path, 0o600) == 0 else { throw Failure("No FIFO can be made in \(directory).") }
        let source = unsafe open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard source >= 0 else { throw Failure("The FIFO \(path) cannot be opened.") }
        do {
            _ = try daemon.ask((["capture", path, "\(length)"] + (port.map { [$0] } ?? [])).joined(separator: " "))
        } catch {
            close(source)
            throw error
        }
        return source
    }

    /// Whole blocks only, so that the file is right whenever it ends.
    private func copy(from source: Int32, to target: Int32) throws {
        var data = Data()
        var chunk = [UInt8](repeating: 0, count: 256 << 10)
        var left = count ?? .max
        while unsafe Self.isInterrupted == 0, left > 0 {
            var polled = pollfd(fd: source, events: Int16(POLLIN), revents: 0)
            guard unsafe poll(&polled, 1, 100) > 0 else { continue }
            let got = unsafe read(source, &chunk, chunk.count)
            if got < 0, errno == EAGAIN || errno == EINTR { continue }
            guard got > 0 else { return }
            data += chunk[..<got]
            var whole = 0
            while left > 0, let length = Pcapng.blockLength(data.dropFirst(whole)), length >= 12, length <= data.count - whole {
                // Enhanced packet block.
                if data[data.startIndex + whole] == 6 { left -= 1 }
                whole += length
            }
            guard put(data.prefix(whole), target) else { return }
            data = Data(data.dropFirst(whole))
        }
    }

    /// False where nobody reads any more.
    private func put(_ data: Data, _ target: Int32) -> Bool {
        var rest = data
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Foundation.write(target, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }
}
