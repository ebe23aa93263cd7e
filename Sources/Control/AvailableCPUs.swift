internal import Foundation

/// The CPUs the calling thread may run on, as the kernel lists them: `sched_getaffinity` is a GNU extension that Swift's C library
/// module does not show. To be asked before EAL starts, which pins the thread that starts it.
public func availableCPUs() -> Set<Int> {
    let status = FileManager.default.contents(atPath: "/proc/thread-self/status") ?? Data()
    let field = "Cpus_allowed_list:"
    let line = String(decoding: status, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix(field) }
    let list = line.map { $0.dropFirst(field.count).filter { $0 != "\t" } } ?? ""
    return Set((try? CPUList.parse(list)) ?? [])
}
