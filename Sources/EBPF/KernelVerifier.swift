internal import CBPF
internal import Glibc

/// How a program's safety is established.
public enum Verification: String, Sendable, Codable {
    /// The kernel's verifier proves exactly the instructions that will run.
    case kernel
    /// No kernel: every access is checked while the program runs, and how long it runs is bounded.
    case sandbox
}

/// Has the kernel verify a program through libbpf, and holds libbpf's relocation against Apus's own. The tests keep
/// it open to run the same program in the kernel.
@safe struct KernelVerifier: ~Copyable {
    let handle: OpaquePointer

    /// Loads the object with only this program into the kernel.
    static func load(_ programs: [LinkedProgram], bytes: [UInt8], asPlain: Bool = false) throws(LoadError) -> KernelVerifier {
        let linked = programs[0]
        if linked.object.hasLegacyMaps {
            throw linked.error(.unsupported, at: nil, "declares maps in section maps, which libbpf stopped to read with version 1.0: the kernel cannot verify it, use verify = sandbox or declare them in SEC(\".maps\")")
        }
        var requests: [apus_program_request] = unsafe []
        let names = unsafe programs.map { unsafe strdup($0.program.name) }
        defer { for unsafe name in unsafe names { unsafe free(name) } }
        for unsafe (program, name) in unsafe zip(programs, names) {
            guard let name = unsafe name else { continue }
            unsafe requests.append(apus_program_request(name: UnsafePointer(name), frags: LoadedProgram.isFragsAware(section: program.section),
                                                        place: asPlain ? APUS_PLACE_DEVICE : LoadedProgram.place(section: program.section),
                                                        bound: !asPlain && program.asksDevice))
        }
        let used = usedMaps(programs)
        let maps = linked.maps.enumerated().map { apus_map_request(create: used.contains($0.offset), entries: UInt32(clamping: $0.element.sizedEntries)) }
        let image = try stubbed(bytes, programs, asPlain: asPlain)
        let kernel = linked.object.kernel
        let types = kernel.hasOnlyKnownTypes ? UAPITypes.bytes : [], settings = linked.object.externals.settings(for: kernel)
        let opened = unsafe image.withUnsafeBytes { buffer in
            unsafe types.withUnsafeBytes { types in
                unsafe settings.withCString { settings in
                    var target = unsafe apus_target(types: types.isEmpty ? nil : types.baseAddress, types_size: types.count, settings: settings)
                    return unsafe apus_object_load(buffer.baseAddress.unsafelyUnwrapped, buffer.count, linked.object.name, requests, requests.count,
                                                   maps, maps.count, &target)
                }
            }
        }
        guard let opened = unsafe opened else { throw linked.error(.refused, at: nil, "not enough memory to verify") }
        let verifier = unsafe KernelVerifier(handle: opened)
        if let refusal = verifier.refusal(of: programs) { throw refusal }
        return verifier
    }

    /// What the verifier is shown where the kernel lacks a function.
    private static func stubbed(_ bytes: [UInt8], _ programs: [LinkedProgram], asPlain: Bool) throws(LoadError) -> [UInt8] {
        // The kernel test-runs nothing that is bound to a device.
        let stubs = programs.reduce(into: Set<String>()) { all, program in
            all.formUnion(asPlain ? Set(program.kernelFunctions.values.filter { KernelFunction(rawValue: $0) != nil }) : program.stubs)
        }
        if stubs.isEmpty { return bytes }
        do throws(Malformed) {
            return try StubbedObject.make(bytes, functions: stubs, by: asPlain ? StubbedObject.refusal : StubbedObject.call)
        } catch {
            throw programs[0].error(.malformed, at: nil, error.message)
        }
    }

    /// Maps the programs refer to, and what those start with. The others need not exist: tools give them a size first.
    private static func usedMaps(_ programs: [LinkedProgram]) -> Set<Int> {
        var used: Set<Int> = []
        for program in programs {
            for instruction in program.instructions where instruction.isLoadImmediate64
                && (instruction.source == PseudoSource.mapFD || instruction.source == PseudoSource.mapValue) {
                used.insert(Int(instruction.immediate))
            }
        }
        let names = programs[0].maps.flatMap { $0.initial.values }
        for (index, map) in programs[0].maps.enumerated() where names.contains(map.name) { used.insert(index) }
        return used
    }

    private init(handle: OpaquePointer) { unsafe self.handle = unsafe handle }

    deinit { unsafe apus_object_close(handle) }

    private func refusal(of programs: [LinkedProgram]) -> LoadError? {
        let error = unsafe apus_object_error(handle)
        if error == 0 { return nil }
        let whole = unsafe String(cString: apus_object_verifier_log(handle))
        let messages = unsafe String(cString: apus_object_messages(handle))
        // libbpf says whose the log is.
        let linked = programs.first { messages.contains("prog '\($0.program.name)'") } ?? programs[0]
        if error == -1 && whole.isEmpty {     // EPERM
            return linked.error(.notPermitted, at: nil, "this process may not load BPF programs, so the kernel cannot verify: run with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")
        }
        if whole.isEmpty { return linked.error(.refused, at: nil, "libbpf cannot load it (error \(-error))\(messages.isEmpty ? ", and says nothing more" : ":\n\(KernelVerifier.lastLines(messages))")") }
        let at = KernelVerifier.lastInstruction(whole)
        let absent = at.flatMap { linked.absent[$0] }.map { ": it reaches \($0)\($0.hasPrefix("CO-RE") ? ", of which the running kernel's types know nothing" : "")" } ?? ""
        return linked.error(.refused, at: at, "the kernel's verifier refuses it\(absent):\n\(KernelVerifier.lastLines(whole))")
    }

    /// The last instruction a verifier's log walks over, "12: (71) r0 = *(u8 *)(r1 +0)": where it gave up.
    private static func lastInstruction(_ log: String) -> Int? {
        for line in log.split(separator: "\n").reversed() {
            guard let colon = line.firstIndex(of: ":"), line[colon...].hasPrefix(": (") || line[colon...].hasPrefix(": <invalid") else { continue }
            if let number = Int(line[..<colon]) { return number }
        }
        return nil
    }

    /// Throws unless libbpf made the same instructions and the same maps of the object.
    func compare(_ programs: [LinkedProgram]) throws(LoadError) {
        let descriptors = try compareMaps(programs[0])
        for (index, linked) in programs.enumerated() { try compare(linked, index, descriptors) }
    }

    private func compare(_ linked: LinkedProgram, _ index: Int, _ descriptors: [Int32]) throws(LoadError) {
        var count = 0
        guard let raw = unsafe apus_object_instructions(handle, index, &count), count == linked.instructions.count else {
            throw linked.error(.mismatch, at: nil, "libbpf relocated it to \(count) instructions, Apus to \(linked.instructions.count)")
        }
        let bytes = unsafe Array(UnsafeRawBufferPointer(start: raw, count: count * 8))
        let view = ByteView(bytes)
        var isSecondHalf = false
        for at in 0..<count {
            let ours = linked.verified(at)
            guard var theirs = try? Instruction(view, at: at * 8) else { continue }
            let isMap = !isSecondHalf && theirs.isLoadImmediate64
                && (theirs.source == PseudoSource.mapFD || theirs.source == PseudoSource.mapValue)
            // Theirs names the map by descriptor, ours by its place.
            if isMap { theirs.immediate = descriptors.firstIndex(of: theirs.immediate).map(Int32.init) ?? -1 }
            guard ours == theirs else {
                throw linked.error(.mismatch, at: at, "libbpf relocated it to \(theirs), Apus to \(ours)")
            }
            isSecondHalf = !isSecondHalf && ours.isLoadImmediate64
        }
    }

    /// libbpf's descriptors of the maps, in our order.
    private func compareMaps(_ linked: LinkedProgram) throws(LoadError) -> [Int32] {
        let count = unsafe apus_object_map_count(handle)
        guard count == linked.maps.count else {
            throw linked.error(.mismatch, at: nil, "libbpf reads \(count) maps, Apus \(linked.maps.count)")
        }
        var descriptors: [Int32] = []
        for (index, ours) in linked.maps.enumerated() {
            let theirs = unsafe apus_object_map(handle, index)
            let name = unsafe String(cString: theirs.name)
            // Of a data section libbpf makes up a name, which ends in the section's, cut.
            guard unsafe theirs.internal == ours.isDataSection, ours.isDataSection || name == ours.name,
                  unsafe theirs.type == ours.type, unsafe theirs.value_size == ours.valueSize,
                  unsafe theirs.max_entries == ours.maxEntries, unsafe theirs.key_size == ours.keySize else {
                throw linked.error(.mismatch, at: nil, "libbpf reads map \(index) as \(name), Apus as \(ours)")
            }
            // The verifier took them for constants.
            if ours.name == ".kconfig", let contents = ours.contents, unsafe theirs.fd >= 0 {
                var value = [UInt8](repeating: 0, count: contents.count)
                guard unsafe apus_map_lookup(theirs.fd, [0, 0, 0, 0] as [UInt8], &value) == 0, value == contents else {
                    throw linked.error(.mismatch, at: nil, "libbpf finds other settings of the kernel: \(value), Apus \(contents)")
                }
            }
            descriptors.append(unsafe theirs.fd)
        }
        return descriptors
    }

    /// Verifiers talk long; the reason stands at the end.
    private static func lastLines(_ text: String) -> String {
        let lines = text.split(separator: "\n").filter { !$0.hasPrefix("processed ") }
        return lines.suffix(8).map { "    \($0)" }.joined(separator: "\n")
    }
}

extension LinkedProgram {
    /// What the verifier is shown in an instruction's place.
    fileprivate func verified(_ at: Int) -> Instruction {
        guard instructions[at].isKernelFunctionCall, let name = kernelFunctions[at], stubs.contains(name) else { return instructions[at] }
        return StubbedObject.call
    }

    /// It calls functions of the kernel that only a program for one device may call.
    fileprivate var asksDevice: Bool {
        kernelFunctions.contains { instructions[$0.key].isKernelFunctionCall && instructions[$0.key].immediate != 0 && KernelFunction(rawValue: $0.value) != nil }
    }
}
