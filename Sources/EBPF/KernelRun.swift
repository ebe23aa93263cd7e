internal import CBPF

/// A program in the kernel, with maps of its own, to measure against: `BPF_PROG_TEST_RUN`.
package final class KernelRun {
    private let verifier: KernelVerifier
    private let maps: [String: Int32]

    /// - Parameter entries: sizes for maps, by name, instead of the object's.
    package init(object path: String, program: String? = nil, entries: [String: Int] = [:]) throws(LoadError) {
        let (linked, bytes) = try ProgramLoader.link(object: path, program: program, entries: entries)
        verifier = try KernelVerifier.load(try ProgramLoader.programs(neededBy: linked), bytes: bytes, asPlain: true)
        var maps: [String: Int32] = [:]
        for (index, map) in linked.maps.enumerated() { maps[map.name] = unsafe apus_object_map(verifier.handle, index).fd }
        self.maps = maps
    }

    package func update(_ map: String, _ key: [UInt8], _ value: [UInt8]) {
        guard let fd = maps[map] else { return }
        _ = unsafe apus_map_update(fd, key, value, 0)
    }

    /// Calls `body` with the program attached to a device that carries nothing, in a network namespace that the calling
    /// thread is in meanwhile: ``nanoseconds(_:count:)`` is quick then, and no less right where that cannot be done.
    package func whileAttached(_ body: () -> Void) {
        var sandbox = apus_sandbox()
        guard unsafe apus_sandbox_enter(&sandbox) == 0 else { return body() }
        defer { unsafe apus_sandbox_leave(&sandbox) }
        let link = apus_attach(unsafe apus_object_program_fd(verifier.handle), sandbox.device)
        defer { if link >= 0 { apus_close(link) } }
        body()
    }

    /// Runs the program `count` times on a packet, each time on what the last run left.
    /// - Returns: nanoseconds a run, by the kernel's clock; nil where the kernel refuses.
    package func nanoseconds(_ packet: [UInt8], count: Int) -> Double? {
        var duration: UInt32 = 0
        guard unsafe apus_test_repeat(apus_object_program_fd(verifier.handle), packet, packet.count, UInt32(count), &duration) == 0 else { return nil }
        return Double(duration)
    }
}

// For measurements, which fill maps they know nothing of.

extension ProgramLoader {
    /// Maps an object declares.
    package static func maps(object path: String) throws(LoadError) -> [(name: String, isHash: Bool, maxEntries: Int)] {
        let linked = try linkAll(object: path, program: nil)
        return linked.first?.maps.map { ($0.name, $0.isPlainHash, $0.maxEntries) } ?? []
    }
}

extension MapDefinition {
    /// Keys of bytes, values of bytes.
    package var isPlainHash: Bool { [MapType.hash, MapType.perCPUHash, MapType.lruHash, MapType.lruPerCPUHash].contains(type) }
}

extension BPFMap {
    /// By which programs know it.
    package var address: UInt64 { UInt64(UInt(bitPattern: unsafe storage)) }
}
