import CLinux
import Glibc

/// A network namespace that the daemon is not in.
struct NetworkNamespace: ~Copyable {
    private let descriptor: FileDescriptor

    /// - Parameter name: a name under /run/netns, or a path.
    init(_ name: String) throws(DPDKError) {
        let number = unsafe open(name.hasPrefix("/") ? name : "/run/netns/\(name)", O_RDONLY | O_CLOEXEC)
        guard number >= 0 else {
            throw DPDKError("cannot open the network namespace '\(name)'", errno, remedy: "make it with 'ip netns add \(name)'")
        }
        descriptor = FileDescriptor(owning: number)
    }

    var number: Int32 { descriptor.number }

    /// Runs `body` with the calling thread inside.
    func inside<Result>(_ body: () throws(DPDKError) -> Result) throws(DPDKError) -> Result {
        let home = apus_current_netns()
        guard home >= 0 else { throw DPDKError("cannot find the daemon's own network namespace", home) }
        defer { close(home) }
        let entered = apus_enter_netns(number)
        guard entered == 0 else { throw DPDKError("cannot enter the network namespace", entered) }
        defer {
            let back = apus_enter_netns(home)
            precondition(back == 0, "the thread cannot return to its own network namespace")
        }
        return try body()
    }
}
