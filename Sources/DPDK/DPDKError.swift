import Glibc

/// What DPDK or the kernel refused, and what an operator can do about it.
public struct DPDKError: Error, CustomStringConvertible {
    public let description: String

    /// `status` is an errno, of either sign; 0 where the library gave none.
    init(_ what: String, _ status: Int32, remedy: String? = nil) {
        let reason = status == 0 ? "" : unsafe ": \(String(cString: strerror(abs(status))))"
        description = "\(what)\(reason)" + (remedy.map { "; \($0)" } ?? "")
    }

    public init(_ what: String) { description = what }
}

extension DPDKError {
    public static func needsMemory(megabytes: Int, available: Int) -> DPDKError {
        DPDKError("[apus] memory asks for \(megabytes) MB and \(available) MB can be had; lower it, or end what uses the rest")
    }

    /// - Parameter node: where they are wanted; nil: anywhere.
    public static func needsHugepages(megabytes: Int, free: Int, node: Int? = nil) -> DPDKError {
        let place = node.map { " on NUMA node \($0)" } ?? ""
        return DPDKError("[apus] hugepages = on needs \(megabytes) MB of free 2 MB hugepages\(place) and there are \(free) MB; reserve them with "
            + "'\(EAL.reserving(megabytes: megabytes, node: node))', or say hugepages = auto")
    }
}
