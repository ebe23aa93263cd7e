internal import CBPF

/// Walks a decoded program instruction by instruction: small, slow, obviously right. The reference for the compiler,
/// and what runs until there is one.
///
/// Trivial: it may be copied to any lcore and used by many at once, as long as its `LoadedProgram` lives.
@safe public struct Interpreter: @unchecked Sendable {     // the program it points to never changes
    let image: UnsafePointer<ProgramImage>

    /// Runs the program once. Verified code ends and touches what it may; unverified code is watched.
    ///
    /// Reads and writes the packet; updates `context.data`, `dataEnd` and `dataMeta`.
    @_noLocks
    public func run(_ context: inout XDPContext) -> Effect {
        var machine = unsafe Machine(image, context)
        let ended = unsafe image.pointee.isSandboxed ? machine.walk(Checked.self, from: 0) : machine.walk(Trusted.self, from: 0)
        if unsafe image.pointee.isSandboxed { machine.leave() }
        let r0 = unsafe machine.registers[0]
        let verdict = ended ? XDPVerdict(returned: UInt32(truncatingIfNeeded: r0)) : .aborted
        return machine.packet.finished(&context, verdict, fault: ended ? .none : machine.fault)
    }
}

/// Whether a machine checks what the program does. Two types instead of a flag: verified code then carries no checks.
protocol Trust {
    static var isChecked: Bool { get }
}

enum Trusted: Trust { static var isChecked: Bool { @_noLocks @inline(__always) get { false } } }
enum Checked: Trust { static var isChecked: Bool { @_noLocks @inline(__always) get { true } } }

/// One run: registers, frames, the packet, and what limits them.
@safe struct Machine {
    /// Changes with a tail call.
    var image: UnsafePointer<ProgramImage>
    let registers: UnsafeMutablePointer<UInt64>
    let saved: UnsafeMutablePointer<UInt64>
    let frames: UInt64
    /// Stands for struct xdp_md, which has six 4-byte fields and no room for pointers: its memory is never read, a load
    /// from its addresses is answered from `packet`.
    let md: UInt64
    var packet: Packet
    var arrival: XDPContext
    /// Which marks count: none that asks for a finished checksum once it is finished.
    var watched: UInt8
    var depth = 0
    var tailCalls: UInt32 = 0
    /// Sandbox: instructions left, and the lock the program holds.
    var budget = Machine.budgetMax
    var heldLock: UInt64 = 0
    var fault = Fault.none
    /// Compiled code: what only helpers look at is filled in for this packet.
    var isPrepared = false

    /// The kernel's verifier follows a million instructions; a loop helper may run eight million times.
    static var budgetMax: Int { @_noLocks @inline(__always) get { 1 << 22 } }
    /// MAX_TAIL_CALL_CNT
    static var tailCallsMax: UInt32 { @_noLocks @inline(__always) get { EngineBug.has(.tailCallLimit) ? 32 : 33 } }

    @_noLocks
    init(_ image: UnsafePointer<ProgramImage>, _ context: XDPContext) {
        let scratch = unsafe apus_scratch()
        unsafe self.image = unsafe image
        unsafe registers = unsafe apus_scratch_registers(scratch)
        unsafe saved = unsafe apus_scratch_saved(scratch)
        frames = unsafe apus_scratch_frames(scratch)
        md = apus_context_address()
        packet = Packet(context)
        arrival = context
        // What an unverified program finds in a register it never wrote is nobody's address.
        for r in 0..<10 { unsafe registers[r] = 0 }
        watched = (context.unfinished?.watched.rawValue ?? 0) | Marks.clearsBit | (unsafe apus_is_traced(scratch) ? Marks.traced.rawValue : 0)
        unsafe registers[1] = md
        unsafe registers[10] = frames &+ UInt64(APUS_FRAME_BYTES)
        unsafe apus_zero(Memory.pointer(frames), Int(APUS_FRAME_BYTES))
    }

    @_noLocks @inline(__always)
    mutating func fails(_ fault: Fault) -> Bool {
        self.fault = fault
        return false
    }

    /// Executes from slot `start` until the function entered there returns.
    /// - Returns: false if the run is over, with the reason in `fault`; true with the answer in r0.
    @inline(__always)
    mutating func walk<T: Trust>(_: T.Type, from start: Int) -> Bool {
        let base = depth
        var code = unsafe image.pointee.code
        var pc = start

        while true {
            if T.isChecked {
                budget &-= 1
                if budget < 0 { return fails(.budget) }
            }
            let i = unsafe code[pc]
            pc &+= 1
            let dst = Int(i.destination)
            unsafe registers[Int(DecodedInstruction.immediateRegister)] = EngineBug.has(.immediateSign) ? i.immediate & 0xffff_ffff : i.immediate
            let a = unsafe registers[dst]
            let b = unsafe registers[Int(i.source)]
            let a32 = UInt32(truncatingIfNeeded: a), b32 = UInt32(truncatingIfNeeded: b)
            // Memory operands: loads count from the source register, stores from the destination.
            let offset = UInt64(bitPattern: Int64(i.offset))
            let from = b &+ offset, to = a &+ offset

            if i.marks & watched != 0 {
                if i.marks & watched & Marks.traced.rawValue != 0 { unsafe apus_trace(code + (pc &- 1), MemoryLayout<DecodedInstruction>.stride) }
                if i.marks & Marks.clearsBit != 0 { packet.effect.cleared = true }
                if i.marks & watched & Marks.lookBits != 0, packet.isLooked(by: i, at: from, arrival) {
                    arrival.finishChecksum()
                    packet.effect.looked = true
                    watched &= ~Marks.lookBits
                }
            }

            switch i.operation {
            case .add64: unsafe registers[dst] = a &+ b
            case .sub64: unsafe registers[dst] = a &- b
            case .mul64: unsafe registers[dst] = a &* b
            case .div64: unsafe registers[dst] = b == 0 ? (EngineBug.has(.divideByZero) ? a : 0) : a / b
            case .mod64: unsafe registers[dst] = b == 0 ? a : a % b
            case .sdiv64: unsafe registers[dst] = Arithmetic.sdiv(a, b)
            case .smod64: unsafe registers[dst] = Arithmetic.smod(a, b)
            case .or64: unsafe registers[dst] = a | b
            case .and64: unsafe registers[dst] = a & b
            case .xor64: unsafe registers[dst] = a ^ b
            case .lsh64: unsafe registers[dst] = EngineBug.has(.wideShift) && b > 63 ? 0 : a &<< b
            case .rsh64: unsafe registers[dst] = a &>> b
            case .arsh64: unsafe registers[dst] = UInt64(bitPattern: Int64(bitPattern: a) &>> Int64(bitPattern: b))
            case .neg64: unsafe registers[dst] = 0 &- a
            case .mov64: unsafe registers[dst] = b
            case .loadImmediate64:
                unsafe registers[dst] = i.immediate
                pc &+= 1
            case .movsx8: unsafe registers[dst] = Arithmetic.extend8(b)
            case .movsx16: unsafe registers[dst] = EngineBug.has(.signExtension) ? b & 0xffff : Arithmetic.extend16(b)
            case .movsx32: unsafe registers[dst] = Arithmetic.extend32(b)

            case .add32: unsafe registers[dst] = UInt64(a32 &+ b32)
            case .sub32: unsafe registers[dst] = UInt64(a32 &- b32)
            case .mul32: unsafe registers[dst] = UInt64(a32 &* b32)
            case .div32: unsafe registers[dst] = UInt64(b32 == 0 ? 0 : a32 / b32)
            case .mod32: unsafe registers[dst] = b32 == 0 ? (EngineBug.has(.remainderUpperHalf) ? a : UInt64(a32)) : UInt64(a32 % b32)
            case .sdiv32: unsafe registers[dst] = UInt64(Arithmetic.sdiv(a32, b32))
            case .smod32: unsafe registers[dst] = UInt64(Arithmetic.smod(a32, b32))
            case .or32: unsafe registers[dst] = UInt64(a32 | b32)
            case .and32: unsafe registers[dst] = UInt64(a32 & b32)
            case .xor32: unsafe registers[dst] = UInt64(a32 ^ b32)
            case .lsh32: unsafe registers[dst] = UInt64(a32 &<< b32)
            case .rsh32: unsafe registers[dst] = UInt64(a32 &>> b32)
            case .arsh32: unsafe registers[dst] = UInt64(EngineBug.has(.arithmeticShiftSign) ? a32 &>> b32 : UInt32(bitPattern: Int32(bitPattern: a32) &>> Int32(bitPattern: b32)))
            case .neg32: unsafe registers[dst] = UInt64(0 &- a32)
            case .mov32: unsafe registers[dst] = UInt64(b32)
            case .movsx8to32: unsafe registers[dst] = Arithmetic.extend8(b) & (EngineBug.has(.signExtensionUpperHalf) ? .max : 0xffff_ffff)
            case .movsx16to32: unsafe registers[dst] = Arithmetic.extend16(b) & 0xffff_ffff

            case .toLittle16: unsafe registers[dst] = UInt64(UInt16(truncatingIfNeeded: a).littleEndian)
            case .toLittle32: unsafe registers[dst] = UInt64(a32.littleEndian)
            case .toLittle64: unsafe registers[dst] = a.littleEndian
            case .toBig16: unsafe registers[dst] = UInt64(UInt16(truncatingIfNeeded: a).bigEndian)
            case .toBig32: unsafe registers[dst] = UInt64(a32.bigEndian)
            case .toBig64: unsafe registers[dst] = a.bigEndian
            case .swap16: unsafe registers[dst] = UInt64(UInt16(truncatingIfNeeded: a).byteSwapped) | (EngineBug.has(.swapUpperHalf) ? a & ~0xffff : 0)
            case .swap32: unsafe registers[dst] = UInt64(a32.byteSwapped)
            case .swap64: unsafe registers[dst] = a.byteSwapped

            case .load8:
                guard mayRead(T.self, from, 1) else { return fails(.access) }
                unsafe registers[dst] = UInt64(Memory.load8(from))
            case .load16:
                guard mayRead(T.self, from, 2) else { return fails(.access) }
                unsafe registers[dst] = UInt64(Memory.load16(from))
            case .load32:
                if from &- md < 24 {
                    unsafe registers[dst] = packet.field(from &- md, arrival)
                } else {
                    guard mayRead(T.self, from, 4) else { return fails(.access) }
                    unsafe registers[dst] = UInt64(Memory.load32(from))
                }
            case .load64:
                guard mayRead(T.self, from, 8) else { return fails(.access) }
                unsafe registers[dst] = Memory.load64(from)
            case .loadSigned8:
                guard mayRead(T.self, from, 1) else { return fails(.access) }
                unsafe registers[dst] = Arithmetic.extend8(UInt64(Memory.load8(from)))
            case .loadSigned16:
                guard mayRead(T.self, from, 2) else { return fails(.access) }
                unsafe registers[dst] = Arithmetic.extend16(UInt64(Memory.load16(from)))
            case .loadSigned32:
                guard mayRead(T.self, from, 4) else { return fails(.access) }
                unsafe registers[dst] = EngineBug.has(.loadSign) ? UInt64(Memory.load32(from)) : Arithmetic.extend32(UInt64(Memory.load32(from)))
            case .store8:
                guard willWrite(T.self, to, 1) else { return fails(.access) }
                Memory.store8(to, b)
            case .store16:
                guard willWrite(T.self, to, 2) else { return fails(.access) }
                Memory.store16(to, b)
            case .store32:
                guard willWrite(T.self, to, 4) else { return fails(.access) }
                Memory.store32(to, b)
            case .store64:
                guard willWrite(T.self, to, 8) else { return fails(.access) }
                Memory.store64(to, EngineBug.has(.storeImmediateSign) && i.source == DecodedInstruction.immediateRegister ? b & 0xffff_ffff : b)

            case .add32Atomic:
                guard willWriteAtomic(T.self, to, 4) else { return fails(.access) }
                _ = unsafe apus_atomic_add32(Memory.word32(to), b32)
            case .or32Atomic:
                guard willWriteAtomic(T.self, to, 4) else { return fails(.access) }
                _ = unsafe apus_atomic_or32(Memory.word32(to), b32)
            case .and32Atomic:
                guard willWriteAtomic(T.self, to, 4) else { return fails(.access) }
                _ = unsafe apus_atomic_and32(Memory.word32(to), b32)
            case .xor32Atomic:
                guard willWriteAtomic(T.self, to, 4) else { return fails(.access) }
                _ = unsafe apus_atomic_xor32(Memory.word32(to), b32)
            case .add64Atomic:
                guard willWriteAtomic(T.self, to, 8) else { return fails(.access) }
                _ = unsafe apus_atomic_add64(Memory.word64(to), b)
            case .or64Atomic:
                guard willWriteAtomic(T.self, to, 8) else { return fails(.access) }
                _ = unsafe apus_atomic_or64(Memory.word64(to), b)
            case .and64Atomic:
                guard willWriteAtomic(T.self, to, 8) else { return fails(.access) }
                _ = unsafe apus_atomic_and64(Memory.word64(to), b)
            case .xor64Atomic:
                guard willWriteAtomic(T.self, to, 8) else { return fails(.access) }
                _ = unsafe apus_atomic_xor64(Memory.word64(to), b)
            case .fetchAdd32, .fetchOr32, .fetchAnd32, .fetchXor32, .exchange32:
                guard willWriteAtomic(T.self, to, 4) else { return fails(.access) }
                unsafe registers[Int(i.source)] = UInt64(Arithmetic.fetch(i.operation, unsafe Memory.word32(to), b32))
                    | (EngineBug.has(.exchangeKeepsUpperHalf) && i.operation == .exchange32 ? b & ~0xffff_ffff : 0)
            case .fetchAdd64, .fetchOr64, .fetchAnd64, .fetchXor64, .exchange64:
                guard willWriteAtomic(T.self, to, 8) else { return fails(.access) }
                unsafe registers[Int(i.source)] = Arithmetic.fetch(i.operation, unsafe Memory.word64(to), b)
            case .compareExchange32:
                guard willWriteAtomic(T.self, to, 4) else { return fails(.access) }
                let old = UInt32(truncatingIfNeeded: unsafe registers[0])
                unsafe registers[0] = UInt64(apus_atomic_cas32(Memory.word32(to), old, b32))
            case .compareExchange64:
                guard willWriteAtomic(T.self, to, 8) else { return fails(.access) }
                unsafe registers[0] = EngineBug.has(.compareAlways) ? apus_atomic_xchg64(Memory.word64(to), b)
                    : apus_atomic_cas64(Memory.word64(to), registers[0], b)

            case .jump: pc &+= Int(i.offset)
            case .jeq64: if a == b { pc &+= Int(i.offset) }
            case .jne64: if a != b { pc &+= Int(i.offset) }
            case .jgt64: if a > b { pc &+= Int(i.offset) }
            case .jge64: if a >= b { pc &+= Int(i.offset) }
            case .jlt64: if a < b { pc &+= Int(i.offset) }
            case .jle64: if a <= b { pc &+= Int(i.offset) }
            case .jset64: if a & b != 0 { pc &+= Int(i.offset) }
            case .jsgt64: if Int64(bitPattern: a) > Int64(bitPattern: b) { pc &+= Int(i.offset) }
            case .jsge64: if Int64(bitPattern: a) >= Int64(bitPattern: b) { pc &+= Int(i.offset) }
            case .jslt64: if Int64(bitPattern: a) < Int64(bitPattern: b) { pc &+= Int(i.offset) }
            case .jsle64: if Int64(bitPattern: a) <= Int64(bitPattern: b), !EngineBug.has(.signedComparison) || a != b { pc &+= Int(i.offset) }
            case .jeq32: if a32 == b32 { pc &+= Int(i.offset) }
            case .jne32: if a32 != b32 { pc &+= Int(i.offset) }
            case .jgt32: if a32 > b32 { pc &+= Int(i.offset) }
            case .jge32: if a32 >= b32 { pc &+= Int(i.offset) }
            case .jlt32: if a32 < b32 { pc &+= Int(i.offset) }
            case .jle32: if a32 <= b32 { pc &+= Int(i.offset) }
            case .jset32: if a32 & b32 != 0 || EngineBug.has(.bitTestWidth) && a & b != 0 { pc &+= Int(i.offset) }
            case .jsgt32: if Int32(bitPattern: a32) > Int32(bitPattern: b32) { pc &+= Int(i.offset) }
            case .jsge32: if Int32(bitPattern: a32) >= Int32(bitPattern: b32) { pc &+= Int(i.offset) }
            case .jslt32: if Int32(bitPattern: a32) < Int32(bitPattern: b32) { pc &+= Int(i.offset) }
            case .jsle32: if Int32(bitPattern: a32) <= Int32(bitPattern: b32) { pc &+= Int(i.offset) }

            case .callLocal:
                guard enter(returningTo: pc) else { return fails(.depth) }
                pc &+= Int(i.offset)
            case .exit:
                if depth == base { return true }
                pc = leaveFrame()
                unsafe code = unsafe image.pointee.code
            case .functionAddress:
                unsafe registers[dst] = UInt64(UInt(bitPattern: pc &+ Int(i.offset)))
                pc &+= 1

            case .tailCall:
                switch tailCall(T.self) {
                case .none: return fails(.access)
                case .some(false): unsafe registers[0] = UInt64(bitPattern: -ErrorNumber.noEntry)
                case .some(true):
                    // The new program runs in this function's frame.
                    unsafe code = unsafe image.pointee.code
                    pc = 0
                    // The first program's marks are for this one's looks, too; its own are for runs that begin with it.
                    // Checksums nobody parsed are watched at each read, wherever.
                    watched &= Marks.opaqueBits | Marks.clearsBit
                }
            case .mapLookup:
                guard let map = unsafe map(T.self, registers[1]), unsafe mayRead(T.self, registers[2], map.pointee.keySize) else { return fails(.access) }
                unsafe registers[0] = map.pointee.lookup(registers[2])
            case .ktime: unsafe registers[0] = apus_ktime_ns(APUS_CLOCK_MONOTONIC)
            case .random: unsafe registers[0] = UInt64(apus_random32())
            case .processor: unsafe registers[0] = UInt64(apus_cpu())
            case .bufferLength: unsafe registers[0] = packet.end &- packet.data &+ UInt64(arrival.bytesBehind)
            case .csumDiff:
                guard unsafe mayRead(T.self, registers[1], Int(registers[2] & 0xffff_ffff)),
                      unsafe mayRead(T.self, registers[3], Int(registers[4] & 0xffff_ffff)) else { return fails(.access) }
                let result = unsafe Helpers.csumDiff(registers[1], registers[2], registers[3], registers[4], registers[5])
                unsafe registers[0] = UInt64(bitPattern: result)
            case .adjustHead: unsafe registers[0] = UInt64(bitPattern: packet.adjustHead(registers[2]))
            case .adjustTail: unsafe registers[0] = UInt64(bitPattern: packet.adjustTail(registers[2]))
            case .adjustMeta: unsafe registers[0] = UInt64(bitPattern: packet.adjustMeta(registers[2]))
            case .mapUpdate, .mapDelete, .helper:
                let number = i.operation == .mapUpdate ? Helper.mapUpdate : i.operation == .mapDelete ? .mapDelete
                    : Helper(rawValue: UInt16(truncatingIfNeeded: i.immediate))
                guard let number, call(T.self, number) else { return fails(fault == .none ? .access : fault) }
            case .loop:
                guard runLoop(T.self) else { return fails(fault == .none ? .access : fault) }
            case .forEach:
                guard runForEach(T.self) else { return fails(fault == .none ? .access : fault) }

            case .invalid: return fails(.instruction)
            }
        }
    }

    // MARK: Frames

    /// Room for a 4-byte key beside the registers saved at this depth, where a nested walk does not reach.
    var keyPlace: UInt64 { @_noLocks @inline(__always) get { UInt64(UInt(bitPattern: unsafe saved + (depth &* 8 &+ 7))) } }

    /// Saves what a callee must keep and gives it a frame of its own.
    @_noLocks @inline(__always)
    mutating func enter(returningTo pc: Int) -> Bool {
        // The verifier bounds the depth; a limit here costs nothing.
        guard depth &+ 1 < Int(APUS_FRAMES_MAX) else { return false }
        let slot = unsafe saved + depth &* 8
        for r in 0..<5 { unsafe slot[r] = registers[r &+ 6] }       // r6 to r9, and r10
        unsafe slot[5] = UInt64(UInt(bitPattern: pc))
        unsafe slot[6] = UInt64(UInt(bitPattern: image))     // a tail call in a subprogram returns to the caller's code
        depth &+= 1
        let frame = frames &+ UInt64(EngineBug.has(.calleeFrame) ? depth &- 1 : depth) &* UInt64(APUS_FRAME_BYTES)
        unsafe apus_zero(Memory.pointer(frame), Int(APUS_FRAME_BYTES))
        unsafe registers[10] = frame &+ UInt64(APUS_FRAME_BYTES)
        return true
    }

    /// - Returns: where the caller goes on.
    @_noLocks @inline(__always)
    mutating func leaveFrame() -> Int {
        depth &-= 1
        let slot = unsafe saved + depth &* 8
        for r in 0..<5 where r != 3 || !EngineBug.has(.calleeSaved) { unsafe registers[r &+ 6] = slot[r] }
        unsafe image = UnsafePointer(Memory.pointer(slot[6]).assumingMemoryBound(to: ProgramImage.self))
        return Int(bitPattern: UInt(unsafe slot[5]))
    }

    /// `bpf_tail_call`: true if it happens, false if there is no such program or were too many, nil for no program array.
    @inline(__always)
    private mutating func tailCall<T: Trust>(_: T.Type) -> Bool? {
        guard let map = unsafe map(T.self, registers[2]), unsafe map.pointee.kind == .programs else { return nil }
        let index = UInt32(truncatingIfNeeded: unsafe registers[3])
        guard unsafe index < map.pointee.maxEntries, tailCalls < Machine.tailCallsMax else { return false }
        let slot = unsafe map.pointee.table &+ UInt64(index) &* UInt64(map.pointee.stride)
        let target = unsafe apus_acquire64(Memory.word64(slot))
        guard target != 0 else { return false }
        tailCalls &+= 1
        unsafe image = UnsafePointer(Memory.pointer(target).assumingMemoryBound(to: ProgramImage.self))
        unsafe registers[1] = md
        return true
    }
}
