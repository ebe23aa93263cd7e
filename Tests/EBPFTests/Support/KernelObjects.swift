import CBPF
import Foundation

/// BPF objects that live in the kernel though no process holds them: what is pinned, attached or forgotten.
enum KernelObjects {
    struct Object: Hashable, Sendable {
        let kind: String
        let id: UInt32
    }

    private static let kinds: [(name: String, letter: CChar)] = [("prog", 0x70), ("map", 0x6d), ("btf", 0x62), ("link", 0x6c)]

    static func all() -> Set<Object> {
        var found: Set<Object> = []
        for (name, letter) in kinds {
            var ids = [UInt32](repeating: 0, count: 1 << 16)
            let count = unsafe apus_twin_ids(letter, &ids, ids.count)
            for id in ids.prefix(max(0, count)) { found.insert(Object(kind: name, id: id)) }
        }
        return found
    }

    /// By any process, this one included.
    private static func held() -> Set<Object> {
        var found: Set<Object> = []
        for process in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] where Int(process) != nil {
            let folder = "/proc/\(process)/fdinfo"
            for fd in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] {
                guard let text = try? String(contentsOfFile: "\(folder)/\(fd)", encoding: .utf8) else { continue }
                for line in text.split(separator: "\n") {
                    let words = line.split(whereSeparator: { $0 == ":" || $0 == "\t" })
                    guard words.count == 2, words[0].hasSuffix("_id"), let id = UInt32(words[1]) else { continue }
                    found.insert(Object(kind: String(words[0].dropLast(3)), id: id))
                }
            }
        }
        return found
    }

    /// What came since `before` and is nobody's. The kernel forgets late, and others come and go: asked again for a while.
    static func orphans(since before: Set<Object>) -> Set<Object> {
        var orphans: Set<Object> = []
        for _ in 0..<60 {
            let now = all().subtracting(before).subtracting(held())
            orphans = orphans.isEmpty ? now : orphans.intersection(now)
            if orphans.isEmpty { return [] }
            usleep(250_000)
        }
        return orphans
    }

    static func pinned() -> Set<String> {
        Set(FileManager.default.enumerator(atPath: "/sys/fs/bpf")?.compactMap { $0 as? String } ?? [])
    }
}
