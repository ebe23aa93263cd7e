/// One instruction as it stands in an object, 8 bytes (RFC 9669 section 3.1, little-endian).
struct Instruction: Equatable {
    var opcode: UInt8
    var registers: UInt8
    var offset: Int16
    var immediate: Int32

    init(opcode: UInt8, destination: UInt8 = 0, source: UInt8 = 0, offset: Int16 = 0, immediate: Int32 = 0) {
        self.opcode = opcode
        registers = destination | source << 4
        self.offset = offset
        self.immediate = immediate
    }

    init(_ data: ByteView, at offset: Int) throws(Malformed) {
        opcode = try data.u8(offset)
        registers = try data.u8(offset + 1)
        self.offset = Int16(bitPattern: try data.u16(offset + 2))
        immediate = Int32(bitPattern: try data.u32(offset + 4))
    }

    var destination: UInt8 { registers & 0xf }
    var source: UInt8 {
        get { registers >> 4 }
        set { registers = registers & 0xf | newValue << 4 }
    }

    var instructionClass: UInt8 { opcode & 0x07 }
    var isLoadImmediate64: Bool { opcode == 0x18 }
    var isCall: Bool { opcode == 0x85 }
    var isLocalCall: Bool { isCall && source == PseudoSource.call }
    var isHelperCall: Bool { isCall && source == 0 }
    var isKernelFunctionCall: Bool { isCall && source == PseudoSource.kernelFunction }

    /// The 8 bytes, for the kernel.
    var encoded: [UInt8] {
        let o = UInt16(bitPattern: offset), i = UInt32(bitPattern: immediate)
        return [opcode, registers, UInt8(truncatingIfNeeded: o), UInt8(truncatingIfNeeded: o >> 8), UInt8(truncatingIfNeeded: i),
                UInt8(truncatingIfNeeded: i >> 8), UInt8(truncatingIfNeeded: i >> 16), UInt8(truncatingIfNeeded: i >> 24)]
    }
}

/// What the source register field means in a 64-bit immediate load and in a call (RFC 9669 sections 4.3 and 5.4).
enum PseudoSource {
    static let mapFD: UInt8 = 1, mapValue: UInt8 = 2, kernelObject: UInt8 = 3, function: UInt8 = 4
    static let call: UInt8 = 1, kernelFunction: UInt8 = 2
}
