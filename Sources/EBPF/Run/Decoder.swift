/// Turns a linked program into the interpreter's form and refuses what the engine does not know. It does not prove
/// anything about what it accepts: that is the verifier's part.
struct Decoder {
    static func decode(_ program: LinkedProgram) throws(LoadError) -> (slots: [DecodedInstruction], references: [MapReference]) {
        let instructions = program.instructions
        var decoded: [DecodedInstruction] = []
        var references: [MapReference] = []
        decoded.reserveCapacity(instructions.count)
        while decoded.count < instructions.count {
            let at = decoded.count
            let instruction = instructions[at]
            guard instruction.destination <= 10, instruction.source <= 10 else {
                throw program.error(.malformed, at: at, "there is no register above r10")
            }
            if instruction.isLoadImmediate64 {
                guard at + 1 < instructions.count, instructions[at + 1].opcode == 0 else {
                    throw program.error(.malformed, at: at, "64-bit load is cut off")
                }
                let high = instructions[at + 1].immediate
                var load = DecodedInstruction(operation: .loadImmediate64, destination: instruction.destination)
                switch instruction.source {
                case 0: load.immediate = UInt64(UInt32(bitPattern: high)) << 32 | UInt64(UInt32(bitPattern: instruction.immediate))
                case PseudoSource.mapFD: references.append(.init(slot: at, map: Int(instruction.immediate), valueOffset: nil))
                case PseudoSource.mapValue: references.append(.init(slot: at, map: Int(instruction.immediate), valueOffset: Int(high)))
                case PseudoSource.function:
                    load.operation = .functionAddress
                    load.offset = instruction.immediate
                // An address in the kernel: nothing but a number that is not 0.
                case PseudoSource.kernelObject where program.kernelFunctions[at] != nil: load.immediate = UInt64(UInt32(bitPattern: instruction.immediate))
                default: throw program.error(.unsupported, at: at, "64-bit load of kind \(instruction.source) is not supported")
                }
                decoded.append(load)
                decoded.append(DecodedInstruction(operation: .invalid))
            } else if program.absent[at] != nil || instruction.isHelperCall && instruction.immediate == CoreResolver.poison {
                // No helper has this number: a run that comes here ends with a fault.
                decoded.append(DecodedInstruction(operation: .helper, immediate: UInt64(CoreResolver.poison)))
            } else if instruction.isKernelFunctionCall {
                let name = program.kernelFunctions[at] ?? "number \(instruction.immediate)"
                guard let function = KernelFunction(rawValue: name) else {
                    throw program.error(.unsupported, at: at, "kernel function \(name) is not supported yet")
                }
                decoded.append(function.decoded)
            } else if instruction.isHelperCall {
                guard let helper = Operation.helper(instruction.immediate) else {
                    throw program.error(.unsupported, at: at, "helper \(KernelNames.helper(instruction.immediate)) is not supported yet")
                }
                decoded.append(DecodedInstruction(operation: helper, immediate: UInt64(UInt32(bitPattern: instruction.immediate))))
            } else if let known = decode(instruction) {
                decoded.append(known)
            } else {
                throw program.error(.unsupported, at: at, "instruction \(hex(instruction)) is not supported")
            }
        }
        try checkTargets(decoded, program)
        // Falling off the end is impossible after verification, and harmless without.
        decoded.append(DecodedInstruction(operation: .invalid))
        return (decoded, references)
    }

    private static func checkTargets(_ decoded: [DecodedInstruction], _ program: LinkedProgram) throws(LoadError) {
        for (at, instruction) in decoded.enumerated() {
            switch instruction.operation {
            case .jump, .callLocal, .functionAddress, .jeq64, .jgt64, .jge64, .jset64, .jne64, .jsgt64, .jsge64, .jlt64, .jle64, .jslt64, .jsle64,
                 .jeq32, .jgt32, .jge32, .jset32, .jne32, .jsgt32, .jsge32, .jlt32, .jle32, .jslt32, .jsle32:
                let target = at + 1 + Int(instruction.offset)
                guard decoded.indices.contains(target), decoded[target].operation != .invalid else {
                    throw program.error(.malformed, at: at, "jumps to \(target), which is no instruction")
                }
            default: break
            }
        }
    }

    private static func hex(_ instruction: Instruction) -> String {
        let digits = Array("0123456789abcdef".unicodeScalars)
        var text = ""
        for byte in instruction.encoded {
            text.unicodeScalars.append(digits[Int(byte >> 4)])
            text.unicodeScalars.append(digits[Int(byte & 15)])
        }
        return text
    }

    /// Everything but 64-bit loads and helper calls; nil for what RFC 9669 does not define for a verified program.
    private static func decode(_ i: Instruction) -> DecodedInstruction? {
        switch i.instructionClass {
        case 0x04, 0x07: arithmetic(i, is64: i.instructionClass == 0x07)
        case 0x05, 0x06: jump(i, is64: i.instructionClass == 0x05)
        case 0x01: memory(i, source: i.source, memoryLoad(i.opcode))
        case 0x02: i.opcode & 0xe0 == 0x60 ? memory(i, source: DecodedInstruction.immediateRegister, store(i.opcode)) : nil
        case 0x03: i.opcode & 0xe0 == 0x60 ? memory(i, source: i.source, store(i.opcode)) : atomic(i)
        default: nil    // 0x00 other than the 64-bit load: legacy packet access, refused for XDP by the kernel too
        }
    }

    private static func operand(_ i: Instruction, _ operation: Operation, offset: Int32 = 0) -> DecodedInstruction {
        let isImmediate = i.opcode & 0x08 == 0
        return DecodedInstruction(
            operation: operation, destination: i.destination,
            source: isImmediate ? DecodedInstruction.immediateRegister : i.source, offset: offset,
            immediate: isImmediate ? UInt64(bitPattern: Int64(i.immediate)) : 0)
    }

    private static func arithmetic(_ i: Instruction, is64: Bool) -> DecodedInstruction? {
        let operation: Operation
        let isRegister = i.opcode & 0x08 != 0
        switch (i.opcode >> 4, i.offset) {
        case (0x0, 0): operation = is64 ? .add64 : .add32
        case (0x1, 0): operation = is64 ? .sub64 : .sub32
        case (0x2, 0): operation = is64 ? .mul64 : .mul32
        case (0x3, 0): operation = is64 ? .div64 : .div32
        case (0x3, 1): operation = is64 ? .sdiv64 : .sdiv32
        case (0x4, 0): operation = is64 ? .or64 : .or32
        case (0x5, 0): operation = is64 ? .and64 : .and32
        case (0x6, 0): operation = is64 ? .lsh64 : .lsh32
        case (0x7, 0): operation = is64 ? .rsh64 : .rsh32
        case (0x8, 0) where !isRegister: operation = is64 ? .neg64 : .neg32
        case (0x9, 0): operation = is64 ? .mod64 : .mod32
        case (0x9, 1): operation = is64 ? .smod64 : .smod32
        case (0xa, 0): operation = is64 ? .xor64 : .xor32
        case (0xb, 0): operation = is64 ? .mov64 : .mov32
        case (0xb, 8) where isRegister: operation = is64 ? .movsx8 : .movsx8to32
        case (0xb, 16) where isRegister: operation = is64 ? .movsx16 : .movsx16to32
        case (0xb, 32) where isRegister && is64: operation = .movsx32
        case (0xc, 0): operation = is64 ? .arsh64 : .arsh32
        case (0xd, 0):
            // The bit that means "register" elsewhere means "big-endian" here; the 64-bit class swaps always.
            switch (is64, isRegister, i.immediate) {
            case (false, false, 16): operation = .toLittle16
            case (false, false, 32): operation = .toLittle32
            case (false, false, 64): operation = .toLittle64
            case (false, true, 16): operation = .toBig16
            case (false, true, 32): operation = .toBig32
            case (false, true, 64): operation = .toBig64
            case (true, false, 16): operation = .swap16
            case (true, false, 32): operation = .swap32
            case (true, false, 64): operation = .swap64
            default: return nil
            }
        default: return nil
        }
        return operand(i, operation)
    }

    private static func jump(_ i: Instruction, is64: Bool) -> DecodedInstruction? {
        let kinds: [Operation]
        switch i.opcode >> 4 {
        // "gotol" keeps its distance in the immediate.
        case 0x0:
            guard i.opcode & 0x08 == 0 else { return nil }
            return DecodedInstruction(operation: .jump, offset: is64 ? Int32(i.offset) : i.immediate)
        case 0x1: kinds = [.jeq64, .jeq32]
        case 0x2: kinds = [.jgt64, .jgt32]
        case 0x3: kinds = [.jge64, .jge32]
        case 0x4: kinds = [.jset64, .jset32]
        case 0x5: kinds = [.jne64, .jne32]
        case 0x6: kinds = [.jsgt64, .jsgt32]
        case 0x7: kinds = [.jsge64, .jsge32]
        case 0x8:
            return i.isLocalCall ? DecodedInstruction(operation: .callLocal, offset: i.immediate) : nil
        case 0x9: return is64 && i.opcode == 0x95 ? DecodedInstruction(operation: .exit) : nil
        case 0xa: kinds = [.jlt64, .jlt32]
        case 0xb: kinds = [.jle64, .jle32]
        case 0xc: kinds = [.jslt64, .jslt32]
        case 0xd: kinds = [.jsle64, .jsle32]
        default: return nil
        }
        return operand(i, kinds[is64 ? 0 : 1], offset: Int32(i.offset))
    }

    private static func memory(_ i: Instruction, source: UInt8, _ operation: Operation?) -> DecodedInstruction? {
        operation.map {
            DecodedInstruction(operation: $0, destination: i.destination, source: source, offset: Int32(i.offset),
                               immediate: UInt64(bitPattern: Int64(i.immediate)))
        }
    }

    private static func memoryLoad(_ opcode: UInt8) -> Operation? {
        switch opcode {
        case 0x61: .load32
        case 0x69: .load16
        case 0x71: .load8
        case 0x79: .load64
        case 0x81: .loadSigned32
        case 0x89: .loadSigned16
        case 0x91: .loadSigned8
        default: nil
        }
    }

    private static func store(_ opcode: UInt8) -> Operation? {
        switch opcode & 0x18 {
        case 0x00: .store32
        case 0x08: .store16
        case 0x10: .store8
        default: .store64
        }
    }

    private static func atomic(_ i: Instruction) -> DecodedInstruction? {
        guard i.opcode == 0xc3 || i.opcode == 0xdb else { return nil }
        let is64 = i.opcode == 0xdb
        let operation: Operation
        switch i.immediate {
        case 0x00: operation = is64 ? .add64Atomic : .add32Atomic
        case 0x40: operation = is64 ? .or64Atomic : .or32Atomic
        case 0x50: operation = is64 ? .and64Atomic : .and32Atomic
        case 0xa0: operation = is64 ? .xor64Atomic : .xor32Atomic
        case 0x01: operation = is64 ? .fetchAdd64 : .fetchAdd32
        case 0x41: operation = is64 ? .fetchOr64 : .fetchOr32
        case 0x51: operation = is64 ? .fetchAnd64 : .fetchAnd32
        case 0xa1: operation = is64 ? .fetchXor64 : .fetchXor32
        case 0xe1: operation = is64 ? .exchange64 : .exchange32
        case 0xf1: operation = is64 ? .compareExchange64 : .compareExchange32
        default: return nil
        }
        return memory(i, source: i.source, operation)
    }
}
