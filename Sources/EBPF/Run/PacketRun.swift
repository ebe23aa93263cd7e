internal import CBPF

/// Runs a program on a packet outside of any forwarder: for tools and tests. The buffer is laid out like that of the
/// kernel's `BPF_PROG_TEST_RUN`: 256 bytes of headroom, a page less what the kernel keeps at its end.
public struct PacketRun: Sendable {
    public let effect: Effect
    /// What the program returned, whole: a number that is no verdict counts as an abort.
    public let returnValue: UInt32
    /// The packet as it was left, metadata in front.
    public let bytes: [UInt8]
    /// Average of one run.
    public let durationNanoseconds: UInt64

    static let headroom = 256, kernelTail = 320, pageBytes = 4096

    /// - Parameter count: how often to run, each time on what the last one left, as the kernel does.
    public init(_ program: LoadedProgram, packet: [UInt8], count: Int = 1, ingressIndex: UInt32 = 1) {
        let room = max(PacketRun.pageBytes - PacketRun.kernelTail, PacketRun.headroom + packet.count)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: room, alignment: 64)
        defer { unsafe buffer.deallocate() }
        _ = unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[PacketRun.headroom...]).copyBytes(from: packet)
        let start = unsafe buffer.baseAddress.unsafelyUnwrapped
        var context = unsafe XDPContext(
            data: start + PacketRun.headroom, dataEnd: start + PacketRun.headroom + packet.count, dataMeta: start + PacketRun.headroom,
            bufferStart: start, bufferEnd: start + room, ingressIndex: ingressIndex)
        var effect = Effect()
        let before = apus_ktime_ns(APUS_CLOCK_MONOTONIC)
        var r0: UInt64 = 0
        withExtendedLifetime(program) {
            let runner = unsafe program.runner
            for _ in 0..<max(count, 1) { (effect, r0) = runner.runWhole(&context) }
        }
        durationNanoseconds = (apus_ktime_ns(APUS_CLOCK_MONOTONIC) - before) / UInt64(max(count, 1))
        returnValue = effect.fault == .none ? UInt32(truncatingIfNeeded: r0) : 0
        self.effect = effect
        let from = unsafe context.dataMeta - start, to = unsafe context.dataEnd - start
        bytes = unsafe Array(buffer[from..<to])
    }
}

/// Bare instructions without an object, a packet or a verifier, watched while they run: for instruction tests.
public enum RawProgram {
    /// - Parameter memory: what r1 points to and r2 counts; both are 0 where it is empty. Left as the program leaves it.
    /// - Parameter prepare: called with the program before it runs, to compile it.
    /// - Returns: r0
    /// - Throws: `LoadError` for what is no program, and for a run that was stopped.
    public static func run(_ bytes: [UInt8], memory: inout [UInt8], prepare: (LoadedProgram) throws -> Void = { _ in }) throws -> UInt64 {
        guard !bytes.isEmpty, bytes.count % 8 == 0 else {
            throw LoadError(.malformed, object: "program", "\(bytes.count) bytes are not whole instructions of 8")
        }
        let view = ByteView(bytes)
        let instructions = stride(from: 0, to: bytes.count, by: 8).compactMap { try? Instruction(view, at: $0) }
        let linked = LinkedProgram(name: "program", instructions: instructions, maps: [])
        let program = try ProgramSet(linked.object, isSandboxed: true, isRaw: true).load([linked])
        try prepare(program)
        let (fault, r0) = unsafe memory.withUnsafeMutableBytes { memory in
            withExtendedLifetime(program) { unsafe program.runner.run(over: memory) }
        }
        switch fault {
        case .none: return r0
        case .access: throw LoadError(.refused, object: "program", "stopped: it touched memory that is not its own")
        case .budget: throw LoadError(.refused, object: "program", "stopped: it executed more than \(Machine.budgetMax) instructions")
        case .depth: throw LoadError(.refused, object: "program", "stopped: its calls nest deeper than \(APUS_FRAMES_MAX) frames")
        case .instruction: throw LoadError(.refused, object: "program", "stopped: it ran into something that is no instruction")
        }
    }
}

extension Runner {
    /// Like a packet, but r1 and r2 are its address and size.
    fileprivate func run(over memory: UnsafeMutableRawBufferPointer) -> (fault: Fault, r0: UInt64) {
        unsafe withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) { nothing in
            let start = unsafe memory.baseAddress ?? nothing.baseAddress.unsafelyUnwrapped
            let end = unsafe start + memory.count
            var context = unsafe XDPContext(data: start, dataEnd: end, dataMeta: start, bufferStart: start, bufferEnd: end)
            if unsafe apus_acquire64(image.pointee.compiled) != 0 {
                let (effect, r0) = runWhole(&context)
                return (effect.fault, r0)
            }
            var machine = unsafe Machine(image, context)
            unsafe machine.registers[1] = memory.isEmpty ? 0 : UInt64(UInt(bitPattern: start))
            unsafe machine.registers[2] = UInt64(memory.count)
            let ended = machine.walk(Checked.self, from: 0)
            machine.leave()
            return (ended ? .none : machine.fault, unsafe machine.registers[0])
        }
    }
}
