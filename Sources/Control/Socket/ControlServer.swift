internal import Foundation
internal import Glibc

/// The loop behind `ControlSocket`: one `poll` over the listener and all clients, everything nonblocking. Made by one thread and then
/// used by another only.
final class ControlServer {
    static let clientCountMax = 64

    private let listener: Descriptor
    private let path: String
    private let identity: [UInt]?
    private let wake: Wake
    private let commands: [String: ControlSocket.Command]
    private var clients: [ControlConnection] = []
    private var activity: UInt64 = 0

    init(listener: consuming Descriptor, path: String, wake: Wake, commands: [String: ControlSocket.Command]) {
        self.listener = listener
        self.path = path
        self.wake = wake
        self.commands = commands
        identity = UnixSocket.identity(path)
    }

    /// Returns when woken.
    func run() {
        var signals = sigset_t()
        _ = unsafe sigfillset(&signals)
        // The daemon's signals are for its main thread.
        _ = unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
        var isAccepting = true
        while true {
            var polled = [pollfd(fd: wake.reader.raw, events: Int16(POLLIN), revents: 0),
                          pollfd(fd: isAccepting ? listener.raw : -1, events: Int16(POLLIN), revents: 0)]
            polled += clients.map { pollfd(fd: $0.descriptor.raw, events: $0.events, revents: 0) }
            let isReady = clients.contains(where: \.isReady)
            // Without descriptors to accept with, the listener would be ready for ever: look again a little later.
            let count = unsafe poll(&polled, nfds_t(polled.count), isReady ? 0 : isAccepting ? -1 : 100)
            guard count >= 0 || errno == EINTR else { break }
            if count > 0, polled[0].revents != 0 { break }
            if count >= 0 { serve(polled[2...]) }
            isAccepting = count > 0 && polled[1].revents != 0 ? accept() : true
        }
        close()
    }

    /// Removes the file, unless it is another's by now.
    func close() {
        clients = []
        if let identity, UnixSocket.identity(path) == identity { _ = unsafe unlink(path) }
    }

    private func serve(_ polled: ArraySlice<pollfd>) {
        for (client, event) in zip(clients, polled) where event.revents != 0 || client.isReady {
            if event.revents & Int16(POLLIN) != 0 {
                activity += 1
                client.lastActive = activity
            }
            // POLLHUP alone too: the read finds the end. POLLERR: the read or the write does.
            client.receive()
            client.advance(answer)
            // Nobody is there to read, and an event that cannot be masked would end every wait at once.
            if event.revents & Int16(POLLHUP | POLLERR | POLLNVAL) != 0, !client.isReady { client.abandon() }
        }
        clients.removeAll(where: \.isFinished)
    }

    /// One client a round, so that a flood of them does not keep the connected ones waiting. False if there are no descriptors left.
    private func accept() -> Bool {
        let raw = Glibc.accept(listener.raw, nil, nil)
        guard raw >= 0 else {
            if [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(errno) { return evict() }
            return true
        }
        let descriptor = Descriptor(owning: raw)
        guard UnixSocket.makeNonblocking(raw) else { return true }
        // The longest silent one goes: whoever opens many and says nothing must not shut out the operator.
        if clients.count >= Self.clientCountMax { _ = evict() }
        activity += 1
        let client = ControlConnection(descriptor)
        client.lastActive = activity
        clients.append(client)
        return true
    }

    private func evict() -> Bool {
        guard let index = clients.indices.min(by: { clients[$0].lastActive < clients[$1].lastActive }) else { return false }
        clients.remove(at: index)
        return true
    }

    private func answer(_ line: Substring) -> Data {
        let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
        guard let name = words.first.map(String.init) else { return ControlReply.error("the line is empty; 'help' lists the commands") }
        if let command = commands[name] {
            do { return try command(Array(words.dropFirst())) } catch { return ControlReply.error(error.message) }
        }
        let names = (commands.keys + ["help"]).sorted()
        if name == "help" { return ControlReply.json(["commands": names]) }
        return ControlReply.error("unknown command \(name.quoted); \(Vocabulary(names).remedy(for: name))")
    }
}
