internal import CBPF

/// Walks a decoded program instruction by instruction: small, slow, obviously right. The reference for the compiler,
/// and what runs until there is one.
///
/// Trivial: it may be copied to any lcore and used by many at once, as long as its `LoadedProgram` lives.
@safe public struct Interpreter: @unchecked Sendable {     // the program it points to never changes
    let program: UnsafePointer<DecodedInstruction>

    /// Runs the program once. The code was verified: it ends, and touches what it may.
    ///
    /// Reads and writes the packet; updates `context.data`, `dataEnd` and `dataMeta`.
    @_noLocks
    public func run(_ context: inout XDPContext) -> Effect {
        let scratch = unsafe apus_scratch()
        let registers = unsafe apus_scratch_registers(scratch)
        let saved = unsafe apus_scratch_saved(scratch)
        let frames = unsafe apus_scratch_frames(scratch)
        // Stands for struct xdp_md, which has six 4-byte fields and no room for pointers: its memory is never read,
        // a load from its addresses is answered from `packet`.
        let md = unsafe apus_scratch_context(scratch)
        var packet = Packet(context)
        var watched = unsafe context.unfinished?.watched.rawValue ?? 0
        unsafe registers[1] = md
        unsafe registers[10] = frames &+ UInt64(APUS_FRAME_BYTES)
        unsafe apus_zero(Memory.pointer(frames), Int(APUS_FRAME_BYTES))
        var depth = 0
        var pc = 0

        while true {
            let i = unsafe program[pc]
            pc &+= 1
            let dst = Int(i.destination)
            unsafe registers[Int(DecodedInstruction.immediateRegister)] = i.immediate
            let a = unsafe registers[dst]
            let b = unsafe registers[Int(i.source)]
            let a32 = UInt32(truncatingIfNeeded: a), b32 = UInt32(truncatingIfNeeded: b)
            // Memory operands: loads count from the source register, stores from the destination.
            let offset = UInt64(bitPattern: Int64(i.offset))
            let from = b &+ offset, to = a &+ offset

            if i.marks & watched != 0, packet.isLooked(by: i, at: from, context) {
                unsafe context.finishChecksum()
                packet.effect.looked = true
                watched = 0
            }

            switch i.operation {
            case .add64: unsafe registers[dst] = a &+ b
            case .sub64: unsafe registers[dst] = a &- b
            case .mul64: unsafe registers[dst] = a &* b
            case .div64: unsafe registers[dst] = b == 0 ? 0 : a / b
            case .mod64: unsafe registers[dst] = b == 0 ? a : a % b
            case .sdiv64: unsafe registers[dst] = Arithmetic.sdiv(a, b)
            case .smod64: unsafe registers[dst] = Arithmetic.smod(a, b)
            case .or64: unsafe registers[dst] = a | b
            case .and64: unsafe registers[dst] = a & b
            case .xor64: unsafe registers[dst] = a ^ b
            case .lsh64: unsafe registers[dst] = a &<< b
            case .rsh64: unsafe registers[dst] = a &>> b
            case .arsh64: unsafe registers[dst] = UInt64(bitPattern: Int64(bitPattern: a) &>> Int64(bitPattern: b))
            case .neg64: unsafe registers[dst] = 0 &- a
            case .mov64: unsafe registers[dst] = b
            case .loadImmediate64:
                unsafe registers[dst] = i.immediate
                pc &+= 1
            case .movsx8: unsafe registers[dst] = Arithmetic.extend8(b)
            case .movsx16: unsafe registers[dst] = Arithmetic.extend16(b)
            case .movsx32: unsafe registers[dst] = Arithmetic.extend32(b)

            case .add32: unsafe registers[dst] = UInt64(a32 &+ b32)
            case .sub32: unsafe registers[dst] = UInt64(a32 &- b32)
            case .mul32: unsafe registers[dst] = UInt64(a32 &* b32)
            case .div32: unsafe registers[dst] = UInt64(b32 == 0 ? 0 : a32 / b32)
            case .mod32: unsafe registers[dst] = UInt64(b32 == 0 ? a32 : a32 % b32)
            case .sdiv32: unsafe registers[dst] = UInt64(Arithmetic.sdiv(a32, b32))
            case .smod32: unsafe registers[dst] = UInt64(Arithmetic.smod(a32, b32))
            case .or32: unsafe registers[dst] = UInt64(a32 | b32)
            case .and32: unsafe registers[dst] = UInt64(a32 & b32)
            case .xor32: unsafe registers[dst] = UInt64(a32 ^ b32)
            case .lsh32: unsafe registers[dst] = UInt64(a32 &<< b32)
            case .rsh32: unsafe registers[dst] = UInt64(a32 &>> b32)
            case .arsh32: unsafe registers[dst] = UInt64(UInt32(bitPattern: Int32(bitPattern: a32) &>> Int32(bitPattern: b32)))
            case .neg32: unsafe registers[dst] = UInt64(0 &- a32)
            case .mov32: unsafe registers[dst] = UInt64(b32)
            case .movsx8to32: unsafe registers[dst] = Arithmetic.extend8(b) & 0xffff_ffff
            case .movsx16to32: unsafe registers[dst] = Arithmetic.extend16(b) & 0xffff_ffff

            case .toLittle16: unsafe registers[dst] = UInt64(UInt16(truncatingIfNeeded: a).littleEndian)
            case .toLittle32: unsafe registers[dst] = UInt64(a32.littleEndian)
            case .toLittle64: unsafe registers[dst] = a.littleEndian
            case .toBig16: unsafe registers[dst] = UInt64(UInt16(truncatingIfNeeded: a).bigEndian)
            case .toBig32: unsafe registers[dst] = UInt64(a32.bigEndian)
            case .toBig64: unsafe registers[dst] = a.bigEndian
            case .swap16: unsafe registers[dst] = UInt64(UInt16(truncatingIfNeeded: a).byteSwapped)
            case .swap32: unsafe registers[dst] = UInt64(a32.byteSwapped)
            case .swap64: unsafe registers[dst] = a.byteSwapped

            case .load8: unsafe registers[dst] = UInt64(Memory.load8(from))
            case .load16: unsafe registers[dst] = UInt64(Memory.load16(from))
            case .load32: unsafe registers[dst] = from &- md < 24 ? packet.field(from &- md, context) : UInt64(Memory.load32(from))
            case .load64: unsafe registers[dst] = Memory.load64(from)
            case .loadSigned8: unsafe registers[dst] = Arithmetic.extend8(UInt64(Memory.load8(from)))
            case .loadSigned16: unsafe registers[dst] = Arithmetic.extend16(UInt64(Memory.load16(from)))
            case .loadSigned32: unsafe registers[dst] = Arithmetic.extend32(UInt64(Memory.load32(from)))
            case .store8: packet.willStore(to, 1); Memory.store8(to, b)
            case .store16: packet.willStore(to, 2); Memory.store16(to, b)
            case .store32: packet.willStore(to, 4); Memory.store32(to, b)
            case .store64: packet.willStore(to, 8); Memory.store64(to, b)

            case .add32Atomic: packet.willStore(to, 4); _ = unsafe apus_atomic_add32(Memory.word32(to), b32)
            case .or32Atomic: packet.willStore(to, 4); _ = unsafe apus_atomic_or32(Memory.word32(to), b32)
            case .and32Atomic: packet.willStore(to, 4); _ = unsafe apus_atomic_and32(Memory.word32(to), b32)
            case .xor32Atomic: packet.willStore(to, 4); _ = unsafe apus_atomic_xor32(Memory.word32(to), b32)
            case .add64Atomic: packet.willStore(to, 8); _ = unsafe apus_atomic_add64(Memory.word64(to), b)
            case .or64Atomic: packet.willStore(to, 8); _ = unsafe apus_atomic_or64(Memory.word64(to), b)
            case .and64Atomic: packet.willStore(to, 8); _ = unsafe apus_atomic_and64(Memory.word64(to), b)
            case .xor64Atomic: packet.willStore(to, 8); _ = unsafe apus_atomic_xor64(Memory.word64(to), b)
            case .fetchAdd32, .fetchOr32, .fetchAnd32, .fetchXor32, .exchange32:
                packet.willStore(to, 4)
                unsafe registers[Int(i.source)] = UInt64(Arithmetic.fetch(i.operation, unsafe Memory.word32(to), b32))
            case .fetchAdd64, .fetchOr64, .fetchAnd64, .fetchXor64, .exchange64:
                packet.willStore(to, 8)
                unsafe registers[Int(i.source)] = Arithmetic.fetch(i.operation, unsafe Memory.word64(to), b)
            case .compareExchange32:
                packet.willStore(to, 4)
                let old = UInt32(truncatingIfNeeded: unsafe registers[0])
                unsafe registers[0] = UInt64(apus_atomic_cas32(Memory.word32(to), old, b32))
            case .compareExchange64:
                packet.willStore(to, 8)
                unsafe registers[0] = apus_atomic_cas64(Memory.word64(to), registers[0], b)

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
            case .jsle64: if Int64(bitPattern: a) <= Int64(bitPattern: b) { pc &+= Int(i.offset) }
            case .jeq32: if a32 == b32 { pc &+= Int(i.offset) }
            case .jne32: if a32 != b32 { pc &+= Int(i.offset) }
            case .jgt32: if a32 > b32 { pc &+= Int(i.offset) }
            case .jge32: if a32 >= b32 { pc &+= Int(i.offset) }
            case .jlt32: if a32 < b32 { pc &+= Int(i.offset) }
            case .jle32: if a32 <= b32 { pc &+= Int(i.offset) }
            case .jset32: if a32 & b32 != 0 { pc &+= Int(i.offset) }
            case .jsgt32: if Int32(bitPattern: a32) > Int32(bitPattern: b32) { pc &+= Int(i.offset) }
            case .jsge32: if Int32(bitPattern: a32) >= Int32(bitPattern: b32) { pc &+= Int(i.offset) }
            case .jslt32: if Int32(bitPattern: a32) < Int32(bitPattern: b32) { pc &+= Int(i.offset) }
            case .jsle32: if Int32(bitPattern: a32) <= Int32(bitPattern: b32) { pc &+= Int(i.offset) }

            case .callLocal:
                // The verifier bounds the depth; a limit here costs nothing.
                guard depth &+ 1 < Int(APUS_FRAMES_MAX) else { return packet.finished(&context, .aborted) }
                let slot = unsafe saved + depth &* 8
                for r in 0..<5 { unsafe slot[r] = registers[r &+ 6] }       // r6 to r9, and r10
                unsafe slot[5] = UInt64(pc)
                depth &+= 1
                let frame = frames &+ UInt64(depth) &* UInt64(APUS_FRAME_BYTES)
                unsafe apus_zero(Memory.pointer(frame), Int(APUS_FRAME_BYTES))
                unsafe registers[10] = frame &+ UInt64(APUS_FRAME_BYTES)
                pc &+= Int(i.offset)
            case .exit:
                if depth == 0 {
                    return packet.finished(&context, XDPVerdict(returned: UInt32(truncatingIfNeeded: unsafe registers[0])))
                }
                depth &-= 1
                let slot = unsafe saved + depth &* 8
                for r in 0..<5 { unsafe registers[r &+ 6] = slot[r] }
                pc = Int(unsafe slot[5])

            case .mapLookup: unsafe registers[0] = Helpers.map(registers[1]).pointee.lookup(registers[2])
            case .mapUpdate:
                let result = unsafe Helpers.map(registers[1]).pointee.update(registers[2], registers[3], flags: registers[4])
                unsafe registers[0] = UInt64(bitPattern: result)
            case .mapDelete: unsafe registers[0] = UInt64(bitPattern: Helpers.map(registers[1]).pointee.delete(registers[2]))
            case .csumDiff:
                let result = unsafe Helpers.csumDiff(registers[1], registers[2], registers[3], registers[4], registers[5])
                unsafe registers[0] = UInt64(bitPattern: result)
            case .adjustHead: unsafe registers[0] = UInt64(bitPattern: packet.adjustHead(registers[2]))
            case .adjustTail: unsafe registers[0] = UInt64(bitPattern: packet.adjustTail(registers[2]))
            case .adjustMeta: unsafe registers[0] = UInt64(bitPattern: packet.adjustMeta(registers[2]))
            case .bufferLength: unsafe registers[0] = packet.end &- packet.data &+ UInt64(context.bytesBehind)
            case .ktime: unsafe registers[0] = apus_ktime_ns()
            case .random: unsafe registers[0] = UInt64(apus_random32())
            case .processor: unsafe registers[0] = UInt64(apus_cpu())

            case .invalid: return packet.finished(&context, .aborted)
            }
        }
    }
}
