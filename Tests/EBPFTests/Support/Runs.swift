import CBPF

@testable import EBPF

/// What a run left behind, here or in the kernel.
struct Outcome: Equatable {
    var verdict: UInt32
    var bytes: [UInt8]
}

/// Which of the two runs a program.
enum Engine { case interpreter, compiled }

/// Runs an engine on a packet in a buffer laid out like BPF_PROG_TEST_RUN's: 256 bytes of headroom, a page less
/// what the kernel keeps at its end.
struct Bench {
    var headroom = 256
    var bufferSize = 4096 - 320
    var metadata = 0
    /// What it holds, as far as given.
    var metadataBytes: [UInt8] = []
    var isMultiBuffer = false
    var bytesBehind = 0
    var ingressIndex: UInt32 = 7
    var rxQueue: UInt32 = 3
    /// Around the packet. Recognisable, so that a read or write beyond shows; the kernel's is 0.
    var filler: UInt8 = 0xa5

    struct Run {
        var effect: Effect
        var bytes: [UInt8]
        var r0: UInt64
        /// The whole buffer behind the run, and where data, its end and metadata lie in it.
        var buffer: [UInt8]
        var data, end, meta: Int

        /// As BPF_PROG_TEST_RUN gives it: the bytes begin with the metadata.
        var outcome: Outcome { Outcome(verdict: effect.verdict.rawValue, bytes: Array(buffer[meta..<end])) }
    }

    /// As a stage would: that this compiles is the test that a run takes no lock and allocates nothing.
    @_noLocks
    private static func packet(_ interpreter: Interpreter, _ context: inout XDPContext) -> Effect {
        let effect = interpreter.run(&context)
        switch effect.verdict {
        case .pass where effect.wrote && !effect.written.reaches(from: 14): return effect
        default: return effect
        }
    }

    /// - Parameter unfinished: makes the packet partial, given its first byte.
    func run(_ program: LoadedProgram, _ packet: [UInt8], engine: Engine = .interpreter,
             unfinished: (UnsafeMutableRawPointer) -> UnfinishedChecksum? = { _ in nil }) -> Run {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferSize, alignment: 64)
        defer { unsafe buffer.deallocate() }
        _ = unsafe buffer.initializeMemory(as: UInt8.self, repeating: filler)
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[headroom...]).copyBytes(from: packet)
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[(headroom - metadata)..<headroom]).copyBytes(from: metadataBytes.prefix(metadata))
        let start = buffer.baseAddress!
        var context = unsafe XDPContext(
            data: start + headroom, dataEnd: start + headroom + packet.count, dataMeta: start + headroom - metadata,
            bufferStart: start, bufferEnd: start + bufferSize, ingressIndex: ingressIndex, rxQueue: rxQueue,
            isMultiBuffer: isMultiBuffer, bytesBehind: bytesBehind)
        context.unfinished = unsafe unfinished(context.data)
        // Neither engine keeps its program alive.
        let (effect, r0) = withExtendedLifetime(program) {
            if engine == .compiled { return unsafe program.runner.runWhole(&context) }
            let effect = Bench.packet(unsafe program.interpreter, &context)
            return (effect, unsafe apus_scratch_registers(apus_scratch())[0])
        }
        let data = unsafe context.data - start, end = unsafe context.dataEnd - start, meta = unsafe context.dataMeta - start
        let after = unsafe Array(buffer)
        return Run(effect: effect, bytes: Array(after[data..<end]), r0: r0, buffer: after, data: data, end: end, meta: meta)
    }
}

extension WrittenBytes {
    /// Whether it names this byte, counted from the arrival's first.
    func names(_ byte: Int) -> Bool { ranges.contains { Int($0.lower) <= byte && byte < Int($0.upper) } }
}

/// The same program in the kernel, with its own maps.
final class KernelTwin {
    private let verifier: KernelVerifier
    private let descriptors: [String: (fd: Int32, keySize: Int, valueSize: Int)]
    /// Runs in the verified program's place, with its maps.
    private let rewritten: KernelCode?

    /// - Parameter egressReads: instructions that read the number of the device a packet leaves by. The kernel test-runs no
    ///   program that may do that: what runs has a 0 there, which is what a run without such a device reads.
    init(object path: String, program: String? = nil, entries: [String: Int] = [:], egressReads: Set<Int> = []) throws {
        let (linked, bytes) = try ProgramLoader.link(object: path, program: program, entries: entries)
        let verifier = try KernelVerifier.load(try ProgramLoader.programs(neededBy: linked), bytes: bytes, asPlain: egressReads.isEmpty)
        var descriptors: [String: (fd: Int32, keySize: Int, valueSize: Int)] = [:]
        for (index, map) in linked.maps.enumerated() {
            descriptors[map.name] = unsafe (apus_object_map(verifier.handle, index).fd, map.keySize, map.controlValueSize)
        }
        var code: [Instruction]?
        if !egressReads.isEmpty {
            code = linked.instructions.enumerated().map { at, instruction in
                var instruction = egressReads.contains(at) ? Asm.alu(0xb4, instruction.destination) : instruction
                if instruction.isLoadImmediate64 && [PseudoSource.mapFD, PseudoSource.mapValue].contains(instruction.source) {
                    instruction.immediate = unsafe apus_object_map(verifier.handle, Int(instruction.immediate)).fd
                }
                return instruction
            }
        }
        rewritten = try code.map { try KernelCode($0) }
        self.verifier = verifier
        self.descriptors = descriptors
    }

    func run(_ packet: [UInt8], metadata: [UInt8] = [], device: UInt32 = 0) -> Outcome? {
        let program = unsafe rewritten?.descriptor ?? apus_object_program_fd(verifier.handle)
        return metadata.isEmpty && device == 0 ? KernelTwin.run(program, packet) : KernelTwin.run(program, packet, metadata, device)
    }

    static func run(_ program: Int32, _ packet: [UInt8], _ metadata: [UInt8], _ device: UInt32) -> Outcome? {
        let whole = metadata + packet
        var out = [UInt8](repeating: 0, count: 8192), size = UInt32(out.count), verdict: UInt32 = 0
        guard unsafe apus_twin_run(program, whole, whole.count, UInt32(metadata.count), device, &out, &size, &verdict) == 0 else { return nil }
        return Outcome(verdict: verdict, bytes: Array(out.prefix(Int(size))))
    }

    static func run(_ program: Int32, _ packet: [UInt8]) -> Outcome? {
        var out = [UInt8](repeating: 0, count: 8192)
        var size = UInt32(out.count), verdict: UInt32 = 0
        guard unsafe apus_test_run(program, packet, packet.count, &out, &size, &verdict) == 0 else { return nil }
        return Outcome(verdict: verdict, bytes: Array(out.prefix(Int(size))))
    }

    func entries(_ map: String) -> [[UInt8]: [UInt8]] {
        guard let (fd, keySize, valueSize) = descriptors[map] else { return [:] }
        var result: [[UInt8]: [UInt8]] = [:]
        var key = [UInt8](repeating: 0, count: keySize), next = key, value = [UInt8](repeating: 0, count: valueSize)
        var error = unsafe apus_map_next_key(fd, nil, &next)
        while error == 0 {
            key = next
            if unsafe apus_map_lookup(fd, key, &value) == 0 { result[key] = value }
            error = unsafe apus_map_next_key(fd, key, &next)
        }
        return result
    }

    /// What its ring buffer holds, taken out.
    func records(_ map: String) -> [[UInt8]] {
        descriptors[map].map { KernelTwin.records($0.fd) } ?? []
    }

    static func records(_ fd: Int32, room: Int = 1 << 20) -> [[UInt8]] {
        var buffer = [UInt8](repeating: 0, count: room)
        let used = unsafe apus_kernel_records(fd, &buffer, buffer.count)
        var at = 0, records: [[UInt8]] = []
        while at + 4 <= used {
            let size = Int(buffer[at]) | Int(buffer[at + 1]) << 8 | Int(buffer[at + 2]) << 16
            records.append(Array(buffer[(at + 4)..<(at + 4 + size)]))
            at += 4 + size
        }
        return records
    }

    func update(_ map: String, _ key: [UInt8], _ value: [UInt8], _ flags: UInt64) -> Int32 {
        guard let (fd, _, _) = descriptors[map] else { return -1 }
        return unsafe apus_map_update(fd, key, value, flags)
    }

    func delete(_ map: String, _ key: [UInt8]) -> Int32 {
        guard let (fd, _, _) = descriptors[map] else { return -1 }
        return unsafe apus_map_delete(fd, key)
    }
}

extension BPFMap {
    var contents: [[UInt8]: [UInt8]] { Dictionary(uniqueKeysWithValues: entries().map { ($0.key, $0.value) }) }
}
