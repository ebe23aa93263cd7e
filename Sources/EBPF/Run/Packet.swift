internal import CBPF

/// The packet of one run as addresses, what the run did to it so far, and the helpers that move its ends.
struct Packet {
    /// Grown at most this far in front of the arrival: the kernel's 256 bytes of headroom less its own frame record.
    static var headGrowthMax: UInt64 { 216 }
    static var ethernetHeader: UInt64 { 14 }
    static var metadataMax: UInt64 { 255 }    // Linux 6.6; 32 before

    var data, end, meta: UInt64
    let bufferStart, bufferEnd: UInt64
    /// Where the arrival's `data` and `dataEnd` lie now: they follow when the packet is moved.
    private(set) var arrivalData, arrivalEnd: UInt64
    let isMultiBuffer: Bool
    var effect = Effect()

    @_noLocks @inline(__always)
    init(_ context: XDPContext) {
        data = UInt64(UInt(bitPattern: unsafe context.data))
        end = UInt64(UInt(bitPattern: unsafe context.dataEnd))
        meta = UInt64(UInt(bitPattern: unsafe context.dataMeta))
        bufferStart = UInt64(UInt(bitPattern: unsafe context.bufferStart))
        bufferEnd = UInt64(UInt(bitPattern: unsafe context.bufferEnd))
        arrivalData = data
        arrivalEnd = end
        isMultiBuffer = context.isMultiBuffer
    }

    /// Whether a marked instruction is one before which the checksum must be finished: always, or because it loads a
    /// byte of the field. Nothing was written or moved yet: the field is where it was on arrival.
    @_noLocks
    func isLooked(by i: DecodedInstruction, at from: UInt64, _ context: XDPContext) -> Bool {
        let size: UInt64
        switch i.operation {
        case .load8, .loadSigned8: size = 1
        case .load16, .loadSigned16: size = 2
        case .load32, .loadSigned32: size = 4
        default: size = 8
        }
        return Packet.isLooked(marks: i.marks, at: from, size, data: data, context)
    }

    /// The same of a load of `size` bytes.
    @_noLocks
    static func isLooked(marks: UInt8, at from: UInt64, _ size: UInt64, data: UInt64, _ context: XDPContext) -> Bool {
        guard let unfinished = context.unfinished else { return false }
        if marks & unfinished.watched.rawValue & Marks.alwaysBits != 0 { return true }
        let field = data &+ UInt64(unfinished.field)
        return from < field &+ 2 && field < from &+ size
    }

    /// Called before each store of `size` bytes, of which the last tells where it goes: what begins in the metadata may reach
    /// into the packet in the sandbox. Stack and maps lie outside.
    @_noLocks @inline(__always)
    mutating func willStore(_ address: UInt64, _ size: UInt64) {
        if address &+ size &- 1 &- data < end &- data { recordWritten(address, address &+ size) }
    }

    @_noLocks @inline(__always)
    private mutating func recordWritten(_ lower: UInt64, _ upper: UInt64) {
        effect.written.record(Int(bitPattern: UInt(lower &- arrivalData)), Int(bitPattern: UInt(upper &- arrivalData)))
    }

    /// `bpf_xdp_adjust_head`: 0 or a negated error number.
    @_noLocks
    mutating func adjustHead(_ argument: UInt64) -> Int64 {
        let delta = UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: argument)))
        let metaSize = data &- meta
        let lowest = Int64(bitPattern: arrivalData &- Packet.headGrowthMax &+ metaSize)
        let wanted = Int64(bitPattern: data &+ delta)
        guard wanted >= lowest, wanted <= Int64(bitPattern: end &- Packet.ethernetHeader),
              makeRoom(UInt64(bitPattern: wanted) &- metaSize) else { return -ErrorNumber.invalid }
        // The packet may have been moved meanwhile.
        let new = data &+ delta
        if metaSize > 0 && !EngineBug.has(.headMetadata) {
            unsafe apus_move(Memory.pointer(new &- metaSize), Memory.pointer(meta), Int(metaSize))
        }
        if new < data { recordWritten(new, data) }
        data = new
        meta = new &- metaSize
        return 0
    }

    /// `bpf_xdp_adjust_tail`: 0 or a negated error number. New bytes are zero.
    @_noLocks
    mutating func adjustTail(_ argument: UInt64) -> Int64 {
        // The kernel would work on the last fragment, which is not here.
        if isMultiBuffer { return -ErrorNumber.notSupported }
        let delta = Int64(Int32(truncatingIfNeeded: argument))
        let new = Int64(bitPattern: end) &+ delta
        guard new <= Int64(bitPattern: bufferEnd), new >= Int64(bitPattern: data &+ Packet.ethernetHeader) else {
            return -ErrorNumber.invalid
        }
        if delta > 0 {
            if !EngineBug.has(.tailContents) { unsafe apus_zero(Memory.pointer(end), Int(delta)) }
            recordWritten(end, UInt64(bitPattern: new))
        }
        end = UInt64(bitPattern: new)
        effect.lowestEnd = min(effect.lowestEnd, Int32(truncatingIfNeeded: end &- arrivalEnd))
        return 0
    }

    /// `bpf_xdp_adjust_meta`: 0 or a negated error number.
    @_noLocks
    mutating func adjustMeta(_ argument: UInt64) -> Int64 {
        let delta = UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: argument)))
        let wanted = Int64(bitPattern: meta &+ delta)
        guard wanted >= Int64(bitPattern: arrivalData &- Packet.headGrowthMax), wanted <= Int64(bitPattern: data) else {
            return -ErrorNumber.invalid
        }
        let size = data &- UInt64(bitPattern: wanted)
        guard size & 3 == 0, size <= Packet.metadataMax else { return -ErrorNumber.noAccess }
        guard makeRoom(UInt64(bitPattern: wanted)) else { return -ErrorNumber.invalid }
        meta = meta &+ delta
        return 0
    }

    /// Makes `lowest` an address inside the buffer, moving everything up if need be: as far as the whole growth the
    /// kernel allows needs, so that it happens once, or as far as the tailroom goes. What lies in front of the packet
    /// moves along, because a program that shortened the head may grow it again and find its bytes; what comes into
    /// reach at the low end is zeroed, so that nobody else's bytes leave with the packet.
    @_noLocks
    private mutating func makeRoom(_ lowest: UInt64) -> Bool {
        if lowest >= bufferStart { return true }
        let tailroom = bufferEnd &- end
        let needed = bufferStart &- lowest
        guard needed <= tailroom else { return false }
        let generous = bufferStart &+ Packet.headGrowthMax &- arrivalData
        let shift = min(max(needed, generous), tailroom)
        unsafe apus_move(Memory.pointer(bufferStart &+ shift), Memory.pointer(bufferStart), Int(end &- bufferStart))
        unsafe apus_zero(Memory.pointer(bufferStart), Int(shift))
        data &+= shift
        end &+= shift
        meta &+= shift
        arrivalData &+= shift
        arrivalEnd &+= shift
        effect.moved = true
        return true
    }

    /// A load from `struct xdp_md` at `offset`: 32-bit fields to the program, whole pointers to us, as after the
    /// kernel's rewriting.
    @_noLocks
    func field(_ offset: UInt64, _ context: XDPContext) -> UInt64 {
        switch offset {
        case 0: data
        case 4: end
        case 8: meta
        case 12: UInt64(context.ingressIndex)
        case 16: UInt64(context.rxQueue)
        default: 0      // egress_ifindex: only programs in a device map have one
        }
    }

    /// The run is over: writes the ends back and says what happened in total.
    @_noLocks @inline(__always)
    mutating func finished(_ context: inout XDPContext, _ verdict: XDPVerdict, fault: Fault = .none) -> Effect {
        unsafe context.data = Memory.pointer(data)
        unsafe context.dataEnd = Memory.pointer(end)
        unsafe context.dataMeta = Memory.pointer(meta)
        effect.headDelta = Int32(truncatingIfNeeded: data &- arrivalData)
        effect.tailDelta = Int32(truncatingIfNeeded: end &- arrivalEnd)
        effect.verdict = verdict
        effect.fault = fault
        return effect
    }
}
