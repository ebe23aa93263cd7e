internal import CBPF
internal import Foundation
internal import Glibc
internal import Synchronization

/// What programs may ask about the kernel: its types, its configuration, its version, its symbols. Each is read when
/// first asked for, and does not change while the kernel runs.
final class TargetKernel: Sendable {
    static let running = TargetKernel(types: "/sys/kernel/btf/vmlinux", configurations: nil, symbols: "/proc/kallsyms")

    private struct State {
        var types: BTF?
        var configuration: [String: String]??
        var addresses: [String: UInt64?] = [:]
    }

    private let typesPath: String
    private let configurationPaths: [String]
    private let symbolsPath: String
    /// As if it had no such function.
    private let missing: Set<String>
    private let state = Mutex(State())

    /// - Parameter configurations: the first of them that can be read counts; nil: where kernels keep it.
    init(types: String, configurations: [String]?, symbols: String, missing: Set<String> = []) {
        typesPath = types
        configurationPaths = configurations ?? ["/boot/config-" + TargetKernel.release, "/proc/config.gz"]
        symbolsPath = symbols
        self.missing = missing
    }

    /// The kernel says nothing of its types: CO-RE goes by the table of those in its user interface.
    var hasOnlyKnownTypes: Bool { unsafe access(typesPath, R_OK) != 0 }

    func types() throws(Malformed) -> BTF {
        if let types = state.withLock({ $0.types }) { return types }
        let types = hasOnlyKnownTypes ? UAPITypes.btf : try BTF(ByteView(read(typesPath) ?? []))
        state.withLock { $0.types = types }
        return types
    }

    /// A line of the configuration behind its `=`; nil for what it does not set.
    func setting(_ name: String) -> String? { configuration?[name] }

    /// Nil where it cannot be read.
    var configuration: [String: String]? {
        if let known = state.withLock({ $0.configuration }) { return known }
        var found: [String: String]?
        for path in configurationPaths {
            guard let text = unpacked(path) else { continue }
            var settings: [String: String] = [:]
            for line in text.split(separator: "\n") where line.hasPrefix("CONFIG_") {
                guard let split = line.firstIndex(of: "=") else { continue }
                settings[String(line[..<split])] = String(line[line.index(after: split)...])
            }
            found = settings
            break
        }
        state.withLock { $0.configuration = found }
        return found
    }

    var configurationPlaces: String { configurationPaths.joined(separator: ", ") }

    /// The type number of a function that programs may call.
    func function(_ name: String) throws(Malformed) -> UInt32? {
        if missing.contains(name) || hasOnlyKnownTypes { return nil }
        return try types().type(named: name, .function)
    }

    func variable(_ name: String) throws(Malformed) -> UInt32? {
        hasOnlyKnownTypes ? nil : try types().type(named: name, .variable)
    }

    /// Where a symbol lies in the kernel's memory: to programs here no more than a number.
    func address(_ name: String) -> UInt64? {
        if let known = state.withLock({ $0.addresses[name] }) { return known }
        var address: UInt64?
        let ending = Array(" \(name)".utf8)
        for line in (read(symbolsPath) ?? []).split(separator: UInt8(ascii: "\n")) {
            // "ffffffff81000000 T name", and a module's behind a tab.
            let symbol = line.prefix { $0 != UInt8(ascii: "\t") }
            guard symbol.count > ending.count, symbol.suffix(ending.count).elementsEqual(ending) else { continue }
            address = UInt64(String(decoding: symbol.prefix { $0 != UInt8(ascii: " ") }, as: UTF8.self), radix: 16)
            break
        }
        state.withLock { $0.addresses[name] = .some(address) }
        return address
    }

    // MARK: Version

    private static var release: String {
        var system = utsname()
        _ = unsafe uname(&system)
        return unsafe withUnsafeBytes(of: &system.release) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private static var build: String {
        var system = utsname()
        _ = unsafe uname(&system)
        return unsafe withUnsafeBytes(of: &system.version) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// `LINUX_KERNEL_VERSION`. Debian and Ubuntu count sublevels of their own in the release and say the kernel's elsewhere.
    var version: UInt32 {
        var text = TargetKernel.release[...]
        if let debian = TargetKernel.build.firstRange(of: "Debian ") { text = TargetKernel.build[debian.upperBound...] }
        if let ubuntu = read("/proc/version_signature").map({ String(decoding: $0, as: UTF8.self).split(separator: " ") }), ubuntu.count > 2 { text = ubuntu[2][...] }
        let numbers = text.split(separator: ".").prefix(3).map { UInt32($0.prefix { $0.isNumber }) ?? 0 } + [0, 0, 0]
        return numbers[0] << 16 | numbers[1] << 8 | min(numbers[2], 255)
    }

    // MARK: Files

    private func read(_ path: String) -> [UInt8]? {
        // Sizes of files under /sys and /proc are not true.
        guard let file = FileHandle(forReadingAtPath: path), let data = try? file.readToEnd() else { return nil }
        return Array(data)
    }

    private func unpacked(_ path: String) -> String? {
        var size = 0
        guard let text = unsafe apus_read_packed(path, &size) else { return nil }
        defer { unsafe free(text) }
        return unsafe String(decoding: UnsafeRawBufferPointer(start: text, count: size), as: UTF8.self)
    }
}
