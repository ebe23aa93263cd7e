internal import CLLVM
import EBPF

/// RFC 9669 section 4: arithmetic and byte swaps.
extension FunctionEmitter {
    func arithmetic(_ i: DecodedInstruction, _ at: Int) {
        let d = Int(i.destination)
        if let top = framePlace(i, at) { return unsafe set(d, frameAddress(top)) }
        if let value = unsafe moved(i) { return unsafe set(d, value) }
        if i.operation.rawValue >= Operation.toLittle16.rawValue { return unsafe set(d, swapped(i)) }
        let isWide = i.operation.rawValue <= Operation.smod64.rawValue
        let a = unsafe isWide ? register(d) : register32(d), b = unsafe isWide ? operand(i) : operand32(i)
        let value = unsafe binary(i.operation, a, b, isWide ? ir.i64 : ir.i32, bits: isWide ? 64 : 32)
        unsafe set(d, isWide ? value : widened(value))
    }

    /// Where in the frame the result points to, if it does.
    private func framePlace(_ i: DecodedInstruction, _ at: Int) -> Int64? {
        let from = i.operation == .mov64 && i.source != DecodedInstruction.immediateRegister ? Int(i.source) : Int(i.destination)
        guard [.mov64, .add64, .sub64].contains(i.operation), case .frame(let top) = shape(from, at: at) else { return nil }
        if i.operation == .mov64 { return i.source == DecodedInstruction.immediateRegister ? nil : top }
        guard i.source == DecodedInstruction.immediateRegister, Int64(bitPattern: i.immediate).magnitude < 1 << 20 else { return nil }
        return i.operation == .add64 ? top + Int64(bitPattern: i.immediate) : top - Int64(bitPattern: i.immediate)
    }

    /// A 32-bit result clears the upper half.
    private func widened(_ value: IR.Value) -> IR.Value {
        unsafe program.planted == .signExtend32 ? ir.sext(value, ir.i64) : ir.zext(value, ir.i64)
    }

    private func moved(_ i: DecodedInstruction) -> IR.Value? {
        switch i.operation {
        case .mov64: return unsafe operand(i)
        case .mov32: return unsafe widened(operand32(i))
        case .movsx8: return unsafe ir.sext(ir.trunc(operand(i), ir.i8), ir.i64)
        case .movsx16: return unsafe ir.sext(ir.trunc(operand(i), ir.i16), ir.i64)
        case .movsx32: return unsafe program.planted == .moveSigned32 ? ir.zext(ir.trunc(operand(i), ir.i32), ir.i64) : ir.sext(ir.trunc(operand(i), ir.i32), ir.i64)
        case .movsx8to32: return unsafe ir.zext(ir.sext(ir.trunc(operand(i), ir.i8), ir.i32), ir.i64)
        case .movsx16to32: return unsafe ir.zext(ir.sext(ir.trunc(operand(i), ir.i16), ir.i32), ir.i64)
        case .neg64: return unsafe ir.sub(ir.word(0), register(Int(i.destination)))
        case .neg32: return unsafe widened(ir.sub(ir.int(0), register32(Int(i.destination))))
        default: return nil
        }
    }

    private func binary(_ operation: Operation, _ a: IR.Value, _ b: IR.Value, _ kind: IR.Kind, bits: UInt64) -> IR.Value {
        // Shift amounts count modulo the width.
        let amount = unsafe program.planted == .unmaskedShift ? ir.and(b, ir.constant(kind, 2 * bits - 1)) : ir.and(b, ir.constant(kind, bits - 1))
        switch operation {
        case .add64, .add32: return unsafe ir.add(a, b)
        case .sub64, .sub32: return unsafe ir.sub(a, b)
        case .mul64, .mul32: return unsafe ir.mul(a, b)
        case .or64, .or32: return unsafe ir.or(a, b)
        case .and64, .and32: return unsafe ir.and(a, b)
        case .xor64, .xor32: return unsafe ir.xor(a, b)
        case .lsh64, .lsh32: return unsafe shifted(ir.shl(a, amount), amount, kind, bits)
        case .rsh64, .rsh32: return unsafe shifted(ir.lshr(a, amount), amount, kind, bits)
        case .arsh64, .arsh32: return unsafe program.planted == .logicalShift ? ir.lshr(a, amount) : ir.ashr(a, ir.and(b, ir.constant(kind, bits - 1)))
        case .div64, .div32: return unsafe quotient(a, b, kind)
        case .mod64, .mod32: return unsafe remainder(a, b, kind)
        case .sdiv64, .sdiv32: return unsafe signedQuotient(a, b, kind)
        default: return unsafe signedRemainder(a, b, kind)
        }
    }

    /// With a planted bug: as if a shift by the width or more emptied the register.
    private func shifted(_ value: IR.Value, _ amount: IR.Value, _ kind: IR.Kind, _ bits: UInt64) -> IR.Value {
        guard program.planted == .unmaskedShift else { return unsafe value }
        return unsafe ir.select(ir.below(amount, ir.constant(kind, bits)), value, ir.constant(kind, 0))
    }

    /// Division by zero gives 0, its remainder is the dividend; LLVM leaves both undefined.
    private func quotient(_ a: IR.Value, _ b: IR.Value, _ kind: IR.Kind) -> IR.Value {
        let zero = unsafe ir.constant(kind, 0), isZero = unsafe ir.equal(b, zero)
        let quotient = unsafe ir.udiv(a, ir.select(isZero, ir.constant(kind, 1), b))
        return unsafe ir.select(isZero, program.planted == .divisionByZero ? a : zero, quotient)
    }

    private func remainder(_ a: IR.Value, _ b: IR.Value, _ kind: IR.Kind) -> IR.Value {
        let zero = unsafe ir.constant(kind, 0), isZero = unsafe ir.equal(b, zero)
        let remainder = unsafe ir.urem(a, ir.select(isZero, ir.constant(kind, 1), b))
        return unsafe ir.select(isZero, program.planted == .remainderByZero ? zero : a, remainder)
    }

    /// By -1 it is the negation, which wraps for the one quotient that does not fit.
    private func signedQuotient(_ a: IR.Value, _ b: IR.Value, _ kind: IR.Kind) -> IR.Value {
        let zero = unsafe ir.constant(kind, 0), one = unsafe ir.constant(kind, 1)
        let isZero = unsafe ir.equal(b, zero), isMinusOne = unsafe ir.equal(b, ir.sub(zero, one))
        let quotient = unsafe ir.sdiv(a, ir.select(ir.or(isZero, isMinusOne), one, b))
        return unsafe ir.select(isZero, zero, ir.select(isMinusOne, ir.sub(zero, a), quotient))
    }

    private func signedRemainder(_ a: IR.Value, _ b: IR.Value, _ kind: IR.Kind) -> IR.Value {
        let zero = unsafe ir.constant(kind, 0), one = unsafe ir.constant(kind, 1)
        let isZero = unsafe ir.equal(b, zero), isMinusOne = unsafe ir.equal(b, ir.sub(zero, one))
        let remainder = unsafe ir.srem(a, ir.select(ir.or(isZero, isMinusOne), one, b))
        return unsafe ir.select(isZero, a, ir.select(isMinusOne, zero, remainder))
    }

    /// The host is little-endian, as every machine Apus runs on.
    private func swapped(_ i: DecodedInstruction) -> IR.Value {
        let a = unsafe register(Int(i.destination))
        func swap(_ kind: IR.Kind) -> IR.Value {
            let part = unsafe ir.trunc(a, kind)
            return unsafe ir.zext(ir.intrinsic("llvm.bswap", [kind], [part]), ir.i64)
        }
        switch i.operation {
        case .toLittle16: return unsafe ir.and(a, ir.word(0xffff))
        case .toLittle32: return unsafe ir.and(a, ir.word(0xffff_ffff))
        case .toLittle64: return unsafe a
        case .toBig16, .swap16: return unsafe program.planted == .keepsUpperHalf ? ir.or(ir.and(a, ir.word(~0xffff)), swap(ir.i16)) : swap(ir.i16)
        case .toBig32, .swap32: return unsafe swap(ir.i32)
        default: return unsafe ir.intrinsic("llvm.bswap", [ir.i64], [a])
        }
    }
}
