import CDPDK
import Control
import DPDK
import Foundation
import Synchronization
import Wire

/// One capture: a thread that drains the lcores' rings into a FIFO, until nobody reads it any more.
///
/// Only into a FIFO, which the asking side makes: a daemon that wrote wherever it is told would overwrite anything.
final class CaptureSession: Sendable {
    private let rings: [CaptureRing]
    private let names: [String]
    private let descriptor: Int32
    private let isStopped = Mutex(false)
    private let isFinished = Mutex(false)

    /// - Parameter fifo: somebody has it open for reading.
    init(rings: [CaptureRing], names: [String], port: Int?, lengthMax: Int, fifo: String) throws(CommandError) {
        descriptor = unsafe open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw CommandError("'\(fifo)' cannot be opened: \(unsafe String(cString: strerror(errno)))")
        }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFIFO else {
            close(descriptor)
            throw CommandError("'\(fifo)' is no FIFO; apusctl capture makes one")
        }
        self.rings = rings
        self.names = names
        for ring in rings { ring.start(port: port, lengthMax: lengthMax) }
        Thread.detachNewThread { self.run() }
    }

    func stop() {
        isStopped.withLock { $0 = true }
        while !hasEnded { usleep(1000) }
    }

    var hasEnded: Bool { isFinished.withLock { $0 } }

    private func run() {
        let cycles = apus_cycles()
        let wall = UInt64(Date().timeIntervalSince1970 * 1e9)
        let nanosecondsPerCycle = 1e9 / Double(apus_cycles_per_second())
        var output = Pcapng.header(application: "apus", interfaces: names)
        var isRead = write(&output)
        while isRead, !isStopped.withLock({ $0 }) {
            for ring in rings {
                unsafe ring.drain { record, bytes in
                    let since = Double(Int64(bitPattern: record.cycles &- cycles)) * nanosecondsPerCycle
                    unsafe output += Pcapng.packet(
                        interface: Int(record.port), time: UInt64(Int64(wall) + Int64(since)), length: Int(record.length), bytes: bytes,
                        direction: record.kind == CaptureRing.Kind.dropped.rawValue ? nil : record.kind == 0 ? .inbound : .outbound,
                        comment: Self.comment(record))
                }
            }
            if output.isEmpty { usleep(2000) }
            isRead = write(&output)
        }
        for ring in rings { ring.stop() }
        close(descriptor)
        isFinished.withLock { $0 = true }
    }

    /// Everything, or false: nobody reads.
    private func write(_ output: inout Data) -> Bool {
        var polled = pollfd(fd: descriptor, events: Int16(output.isEmpty ? 0 : POLLOUT), revents: 0)
        while !isStopped.withLock({ $0 }) {
            unsafe _ = poll(&polled, 1, output.isEmpty ? 0 : 100)
            if polled.revents & Int16(POLLERR) != 0 { return false }
            if output.isEmpty { return true }
            guard polled.revents & Int16(POLLOUT) != 0 else { continue }
            let count = unsafe output.withUnsafeBytes { unsafe Foundation.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 || errno == EAGAIN || errno == EINTR else { return false }
            if count > 0 { output = Data(output.dropFirst(count)) }
        }
        return false
    }

    /// What the bytes do not say.
    static func comment(_ record: CaptureRing.Record) -> String {
        let state = ChecksumState(rawValue: record.state)
        var text = switch state.kind {
        case .none: "checksum none"
        case .bad: "checksum bad"
        case .unnecessary: "checksum unnecessary, start \(state.start) offset \(state.offset)"
        case .known: "checksum partial, start \(state.start) offset \(state.offset)"
        case .opaque: "checksum partial and opaque, start \(state.start) offset \(state.offset)"
        }
        if state.isSuperframe { text += "; superframe of segments of \(state.segmentSize)" }
        if record.kind == CaptureRing.Kind.dropped.rawValue, let reason = DropReason(rawValue: record.reason) {
            text += "; dropped: \(reason.name)"
        }
        return text
    }
}
