import Testing

@testable import EBPF

/// Every instruction form: by values worked out by hand, and against the kernel over all pairs of corner values.
@Suite struct InstructionTests {
    typealias I = Instruction

    static let corners: [UInt64] = [
        0, 1, 2, 3, 7, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000,
        0x1_0000_001f, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, 0xffff_ffff_8000_0000, 0xffff_ffff_ffff_fffe,
        0xffff_ffff_ffff_ffff, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210,
    ]

    struct Vector: CustomStringConvertible {
        let name: String
        let body: [I]       // on r3 = a, r4 = b
        let a, b: UInt64
        let r3: UInt64

        init(_ name: String, _ body: I..., a: UInt64, b: UInt64 = 0, is r3: UInt64) {
            (self.name, self.body, self.a, self.b, self.r3) = (name, body, a, b, r3)
        }

        var description: String { name }
    }

    static let minus1 = UInt64.max
    static func neg(_ v: Int64) -> UInt64 { UInt64(bitPattern: v) }

    /// RFC 9669 sections 4 and 5, one or more rows a form. X: register operand, K: immediate.
    static let vectors: [Vector] = [
        Vector("add64 X wraps", Asm.alu(0x0f, 3, 4), a: minus1, b: 2, is: 1),
        Vector("add64 K sign-extends", Asm.alu(0x07, 3, imm: -1), a: 0x1_0000_0000, is: 0xffff_ffff),
        Vector("add32 X clears the upper half", Asm.alu(0x0c, 3, 4), a: 0xffff_ffff_ffff_ffff, b: 1, is: 0),
        Vector("add32 K", Asm.alu(0x04, 3, imm: -2), a: 0x5_0000_0001, is: 0xffff_ffff),
        Vector("sub64 X", Asm.alu(0x1f, 3, 4), a: 1, b: 2, is: minus1),
        Vector("sub32 X", Asm.alu(0x1c, 3, 4), a: 1, b: 2, is: 0xffff_ffff),
        Vector("mul64 X", Asm.alu(0x2f, 3, 4), a: 0x1_0000_0001, b: 0x1_0000_0000, is: 0x1_0000_0000),
        Vector("mul32 X", Asm.alu(0x2c, 3, 4), a: 0x1_0001_0000, b: 0x1_0000, is: 0),
        Vector("div64 X", Asm.alu(0x3f, 3, 4), a: minus1, b: 2, is: 0x7fff_ffff_ffff_ffff),
        Vector("div64 X by zero", Asm.alu(0x3f, 3, 4), a: 5, b: 0, is: 0),
        Vector("div32 X", Asm.alu(0x3c, 3, 4), a: 0x9_ffff_fffe, b: 0x7_0000_0002, is: 0x7fff_ffff),
        Vector("div32 X by zero", Asm.alu(0x3c, 3, 4), a: 5, b: 0x1_0000_0000, is: 0),
        Vector("div64 K treats it as unsigned", Asm.alu(0x37, 3, imm: -1), a: minus1, is: 1),
        Vector("sdiv64 X", Asm.alu(0x3f, 3, 4, offset: 1), a: neg(-7), b: 2, is: neg(-3)),
        Vector("sdiv64 X overflow", Asm.alu(0x3f, 3, 4, offset: 1), a: 0x8000_0000_0000_0000, b: minus1, is: 0x8000_0000_0000_0000),
        Vector("sdiv64 X by zero", Asm.alu(0x3f, 3, 4, offset: 1), a: neg(-7), b: 0, is: 0),
        Vector("sdiv32 X", Asm.alu(0x3c, 3, 4, offset: 1), a: 0xffff_fff9, b: 2, is: 0xffff_fffd),
        Vector("sdiv32 X overflow", Asm.alu(0x3c, 3, 4, offset: 1), a: 0x8000_0000, b: 0xffff_ffff, is: 0x8000_0000),
        Vector("sdiv32 K", Asm.alu(0x34, 3, offset: 1, imm: -2), a: 7, is: 0xffff_fffd),
        Vector("mod64 X", Asm.alu(0x9f, 3, 4), a: 17, b: 5, is: 2),
        Vector("mod64 X by zero keeps", Asm.alu(0x9f, 3, 4), a: minus1, b: 0, is: minus1),
        Vector("mod32 X by zero truncates", Asm.alu(0x9c, 3, 4), a: 0x7_0000_0005, b: 0x1_0000_0000, is: 5),
        Vector("smod64 X takes the dividend's sign", Asm.alu(0x9f, 3, 4, offset: 1), a: neg(-13), b: 3, is: neg(-1)),
        Vector("smod64 X overflow", Asm.alu(0x9f, 3, 4, offset: 1), a: 0x8000_0000_0000_0000, b: minus1, is: 0),
        Vector("smod32 X", Asm.alu(0x9c, 3, 4, offset: 1), a: 0xffff_fff3, b: 0xffff_fffd, is: 0xffff_ffff),
        Vector("or64 X", Asm.alu(0x4f, 3, 4), a: 0xf0_0000_0000, b: 0x0f, is: 0xf0_0000_000f),
        Vector("or32 K", Asm.alu(0x44, 3, imm: -1), a: 0xf0_0000_0000, is: 0xffff_ffff),
        Vector("and64 K sign-extends", Asm.alu(0x57, 3, imm: -2), a: minus1, is: 0xffff_ffff_ffff_fffe),
        Vector("and32 X", Asm.alu(0x5c, 3, 4), a: minus1, b: 0xf_8000_0001, is: 0x8000_0001),
        Vector("xor64 X", Asm.alu(0xaf, 3, 4), a: 0xff00, b: 0x0ff0, is: 0xf0f0),
        Vector("xor32 K", Asm.alu(0xa4, 3, imm: -1), a: 0, is: 0xffff_ffff),
        Vector("lsh64 X masks the count", Asm.alu(0x6f, 3, 4), a: 1, b: 65, is: 2),
        Vector("lsh32 X masks the count", Asm.alu(0x6c, 3, 4), a: 0x8000_0001, b: 33, is: 2),
        Vector("rsh64 K", Asm.alu(0x77, 3, imm: 63), a: 0x8000_0000_0000_0000, is: 1),
        Vector("rsh32 X", Asm.alu(0x7c, 3, 4), a: 0xf_8000_0000, b: 31, is: 1),
        Vector("arsh64 X", Asm.alu(0xcf, 3, 4), a: 0x8000_0000_0000_0000, b: 127, is: minus1),
        Vector("arsh32 K", Asm.alu(0xc4, 3, imm: 4), a: 0xf_8000_0000, is: 0xf800_0000),
        Vector("neg64", Asm.alu(0x87, 3), a: 1, is: minus1),
        Vector("neg32", Asm.alu(0x84, 3), a: 0xf_0000_0001, is: 0xffff_ffff),
        Vector("mov64 X", Asm.alu(0xbf, 3, 4), a: 0, b: minus1, is: minus1),
        Vector("mov64 K sign-extends", Asm.alu(0xb7, 3, imm: -1), a: 0, is: minus1),
        Vector("mov32 X", Asm.alu(0xbc, 3, 4), a: 0, b: minus1, is: 0xffff_ffff),
        Vector("mov32 K", Asm.alu(0xb4, 3, imm: -1), a: 0, is: 0xffff_ffff),
        Vector("movsx8", Asm.alu(0xbf, 3, 4, offset: 8), a: 0, b: 0x180, is: 0xffff_ffff_ffff_ff80),
        Vector("movsx16", Asm.alu(0xbf, 3, 4, offset: 16), a: 0, b: 0x1_8000, is: 0xffff_ffff_ffff_8000),
        Vector("movsx32", Asm.alu(0xbf, 3, 4, offset: 32), a: 0, b: 0x8000_0000, is: 0xffff_ffff_8000_0000),
        Vector("movsx8 to 32", Asm.alu(0xbc, 3, 4, offset: 8), a: 0, b: 0x80, is: 0xffff_ff80),
        Vector("movsx16 to 32", Asm.alu(0xbc, 3, 4, offset: 16), a: 0, b: 0x7fff, is: 0x7fff),
        Vector("le16", Asm.alu(0xd4, 3, imm: 16), a: 0x0123_4567_89ab_cdef, is: 0xcdef),
        Vector("le32", Asm.alu(0xd4, 3, imm: 32), a: 0x0123_4567_89ab_cdef, is: 0x89ab_cdef),
        Vector("le64", Asm.alu(0xd4, 3, imm: 64), a: 0x0123_4567_89ab_cdef, is: 0x0123_4567_89ab_cdef),
        Vector("be16", Asm.alu(0xdc, 3, imm: 16), a: 0x0123_4567_89ab_cdef, is: 0xefcd),
        Vector("be32", Asm.alu(0xdc, 3, imm: 32), a: 0x0123_4567_89ab_cdef, is: 0xefcd_ab89),
        Vector("be64", Asm.alu(0xdc, 3, imm: 64), a: 0x0123_4567_89ab_cdef, is: 0xefcd_ab89_6745_2301),
        Vector("bswap16", Asm.alu(0xd7, 3, imm: 16), a: 0x0123_4567_89ab_cdef, is: 0xefcd),
        Vector("bswap32", Asm.alu(0xd7, 3, imm: 32), a: 0x0123_4567_89ab_cdef, is: 0xefcd_ab89),
        Vector("bswap64", Asm.alu(0xd7, 3, imm: 64), a: 0x0123_4567_89ab_cdef, is: 0xefcd_ab89_6745_2301),
        Vector("load8", Asm.load(Asm.byte, 3, 6, 1), a: 0x80ff, is: 0x80),
        Vector("load16 unaligned", Asm.load(Asm.half, 3, 6, 1), a: 0xab_cdef, is: 0xabcd),
        Vector("load32 unaligned", Asm.load(Asm.word, 3, 6, 3), a: 0x0123_4567_89ab_cdef, is: 0x2345_6789),
        Vector("load64 across words", Asm.load(Asm.double, 3, 6, 4), a: 0x0123_4567_0000_0000, b: 0x89ab_cdef, is: 0x89ab_cdef_0123_4567),
        Vector("loadSigned8", Asm.load(Asm.byte, 3, 6, 0, signed: true), a: 0x80, is: 0xffff_ffff_ffff_ff80),
        Vector("loadSigned16", Asm.load(Asm.half, 3, 6, 0, signed: true), a: 0x8001, is: 0xffff_ffff_ffff_8001),
        Vector("loadSigned32", Asm.load(Asm.word, 3, 6, 0, signed: true), a: 0x8000_0001, is: 0xffff_ffff_8000_0001),
        Vector("store8 X", Asm.store(Asm.byte, 6, 0, 4), Asm.load(Asm.double, 3, 6, 0), a: minus1, b: 0x1200, is: 0xffff_ffff_ffff_ff00),
        Vector("store16 X", Asm.store(Asm.half, 6, 1, 4), Asm.load(Asm.double, 3, 6, 0), a: minus1, b: 0x1234, is: 0xffff_ffff_ff12_34ff),
        Vector("store32 X", Asm.store(Asm.word, 6, 0, 4), Asm.load(Asm.double, 3, 6, 0), a: minus1, b: 0xf_0000_0001, is: 0xffff_ffff_0000_0001),
        Vector("store64 K sign-extends", Asm.store(Asm.double, 6, 0, imm: -2), Asm.load(Asm.double, 3, 6, 0), a: 0, is: neg(-2)),
        Vector("store8 K", Asm.store(Asm.byte, 6, 7, imm: 0x1ff), Asm.load(Asm.double, 3, 6, 0), a: 0, is: 0xff00_0000_0000_0000),
        // The jump before each is for the verifier, which wants every instruction reached.
        Vector("gotol", I(opcode: 0x55, destination: 4, offset: 1), I(opcode: 0x06, immediate: 1), Asm.mov(3, imm: 1), a: 9, is: 9),
        Vector("goto", I(opcode: 0x55, destination: 4, offset: 1), I(opcode: 0x05, offset: 1), Asm.mov(3, imm: 1), a: 9, is: 9),
    ]

    @Test(arguments: vectors) func vector(_ vector: Vector) throws {
        let code = Asm.harness(vector.body)
        let packet = Asm.words([vector.a, vector.b, 0, 0, 0, 0, 0, 0])
        let program = try LoadedProgram.bare(code)
        let ours = Bench().run(program, packet)
        #expect(ours.effect.verdict == .pass)
        #expect(Asm.word(ours.bytes, 2) == vector.r3)
        #expect(try KernelCode(code).run(packet) == ours.outcome)
    }

    /// Conditional jumps, by plain Swift: each condition over all pairs.
    @Test func conditionsBySwift() throws {
        let conditions: [(UInt8, @Sendable (UInt64, UInt64) -> Bool, @Sendable (UInt32, UInt32) -> Bool)] = [
            (0x1, { $0 == $1 }, { $0 == $1 }), (0x2, { $0 > $1 }, { $0 > $1 }), (0x3, { $0 >= $1 }, { $0 >= $1 }),
            (0x4, { $0 & $1 != 0 }, { $0 & $1 != 0 }), (0x5, { $0 != $1 }, { $0 != $1 }),
            (0x6, { Int64(bitPattern: $0) > Int64(bitPattern: $1) }, { Int32(bitPattern: $0) > Int32(bitPattern: $1) }),
            (0x7, { Int64(bitPattern: $0) >= Int64(bitPattern: $1) }, { Int32(bitPattern: $0) >= Int32(bitPattern: $1) }),
            (0xa, { $0 < $1 }, { $0 < $1 }), (0xb, { $0 <= $1 }, { $0 <= $1 }),
            (0xc, { Int64(bitPattern: $0) < Int64(bitPattern: $1) }, { Int32(bitPattern: $0) < Int32(bitPattern: $1) }),
            (0xd, { Int64(bitPattern: $0) <= Int64(bitPattern: $1) }, { Int32(bitPattern: $0) <= Int32(bitPattern: $1) }),
        ]
        for (kind, wide, narrow) in conditions {
            for (is64, opcode) in [(true, kind << 4 | 0x0d), (false, kind << 4 | 0x0e)] {
                let program = try LoadedProgram.bare(Asm.harness([Asm.mov(5, imm: 1), I(opcode: opcode, destination: 3, source: 4, offset: 1), Asm.mov(5, imm: 2)]))
                for a in InstructionTests.corners {
                    for b in InstructionTests.corners {
                        let run = Bench(bufferSize: 400).run(program, Asm.words([a, b, 0, 0, 0, 0, 0, 0]))
                        let taken = is64 ? wide(a, b) : narrow(UInt32(truncatingIfNeeded: a), UInt32(truncatingIfNeeded: b))
                        try #require(Asm.word(run.bytes, 4) == (taken ? 1 : 2), "\(opcode) \(a) \(b)")
                    }
                }
            }
        }
    }

    struct Form: CustomStringConvertible {
        let description: String
        let body: [I]
        var subprogram: [I] = []
    }

    /// Every form the decoder knows, around the same registers, for the kernel.
    static let forms: [Form] = {
        var forms: [Form] = []
        let wide: [UInt8] = [0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x9, 0xa, 0xb, 0xc]
        let immediates: [Int32] = [0, 1, 2, 7, 31, -1, -2, .min, .max, 0x1234_5678]
        for kind in wide {
            for (suffix, width) in [(UInt8(0x07), 64), (0x04, 32)] {
                forms.append(Form(description: "alu\(width) \(kind) X", body: [Asm.alu(kind << 4 | suffix | 8, 3, 4)]))
                for imm in immediates {
                    // What the verifier refuses: division by an immediate zero, shifts by the width or more.
                    if (kind == 3 || kind == 9) && imm == 0 || [6, 7, 0xc].contains(kind) && !(0..<Int32(width)).contains(imm) { continue }
                    forms.append(Form(description: "alu\(width) \(kind) K \(imm)", body: [Asm.alu(kind << 4 | suffix, 3, imm: imm)]))
                    if kind == 3 || kind == 9 {
                        forms.append(Form(description: "alu\(width) \(kind) signed K \(imm)", body: [Asm.alu(kind << 4 | suffix, 3, offset: 1, imm: imm)]))
                    }
                }
                if kind == 3 || kind == 9 {
                    forms.append(Form(description: "alu\(width) \(kind) signed X", body: [Asm.alu(kind << 4 | suffix | 8, 3, 4, offset: 1)]))
                }
            }
        }
        for opcode: UInt8 in [0x87, 0x84] { forms.append(Form(description: "neg \(opcode)", body: [Asm.alu(opcode, 3)])) }
        for opcode: UInt8 in [0xd4, 0xdc, 0xd7] {
            for bits: Int32 in [16, 32, 64] { forms.append(Form(description: "swap \(opcode) \(bits)", body: [Asm.alu(opcode, 3, imm: bits)])) }
        }
        for (opcode, widths): (UInt8, [Int16]) in [(0xbf, [8, 16, 32]), (0xbc, [8, 16])] {
            for width in widths { forms.append(Form(description: "movsx \(opcode) \(width)", body: [Asm.alu(opcode, 3, 4, offset: width)])) }
        }
        for kind: UInt8 in [1, 2, 3, 4, 5, 6, 7, 0xa, 0xb, 0xc, 0xd] {
            for (suffix, width) in [(UInt8(0x05), 64), (0x06, 32)] {
                forms.append(Form(description: "jump\(width) \(kind) X", body: [Asm.mov(5, imm: 1), I(opcode: kind << 4 | suffix | 8, destination: 3, source: 4, offset: 1), Asm.mov(5, imm: 2)]))
                for imm: Int32 in [0, 1, -1, .min, .max] {
                    forms.append(Form(description: "jump\(width) \(kind) K \(imm)", body: [Asm.mov(5, imm: 1), I(opcode: kind << 4 | suffix, destination: 3, offset: 1, immediate: imm), Asm.mov(5, imm: 2)]))
                }
            }
        }
        for size in [Asm.byte, Asm.half, Asm.word, Asm.double] {
            for offset: Int16 in [0, 1, 5] {
                forms.append(Form(description: "load \(size) \(offset)", body: [Asm.load(size, 3, 6, offset)]))
                if size != Asm.double { forms.append(Form(description: "load signed \(size) \(offset)", body: [Asm.load(size, 3, 6, offset, signed: true)])) }
                forms.append(Form(description: "store \(size) \(offset)", body: [Asm.store(size, 6, offset, 4)]))
                forms.append(Form(description: "store \(size) \(offset) K", body: [Asm.store(size, 6, offset, imm: -0x1234_5678)]))
            }
        }
        // Atomics may not touch a packet: on the stack, old and new value read back.
        for is64 in [true, false] {
            for kind: Int32 in [0x00, 0x40, 0x50, 0xa0, 0x01, 0x41, 0x51, 0xa1, 0xe1, 0xf1] {
                forms.append(Form(description: "atomic \(is64 ? 64 : 32) \(kind)", body: [
                    Asm.store(Asm.double, 10, -8, 3), Asm.mov(0, 4), Asm.atomic(is64, kind, 10, -8, 4), Asm.load(Asm.double, 5, 10, -8)]))
            }
            // The comparison succeeds.
            forms.append(Form(description: "atomic \(is64 ? 64 : 32) exchange", body: [
                Asm.store(Asm.double, 10, -8, 3), Asm.mov(0, 3), Asm.atomic(is64, 0xf1, 10, -8, 4), Asm.load(Asm.double, 5, 10, -8)]))
        }
        // A subprogram: own frame, r6 to r9 kept, r0 returned.
        // A subprogram behind the harness: own frame, r6 to r9 kept, r0 returned.
        forms.append(Form(description: "call", body: [
            Asm.mov(8, 3), Asm.store(Asm.double, 10, -8, 4), Asm.mov(1, 3), Asm.mov(2, 4), Asm.callLocal(9), Asm.load(Asm.double, 3, 10, -8),
            Asm.mov(4, 8), Asm.mov(5, 0)], subprogram: [
            Asm.mov(8, imm: 77), Asm.store(Asm.double, 10, -8, 1), Asm.load(Asm.double, 0, 10, -8), Asm.alu(0x0f, 0, 2), Asm.exit]))
        return forms
    }()

    @Test func formsEqualTheKernel() throws {
        var runs = 0
        for form in InstructionTests.forms {
            let code = Asm.harness(form.body) + form.subprogram
            guard let kernel = try? KernelCode(code) else {
                Issue.record("the kernel refuses \(form)")
                continue
            }
            let program = try LoadedProgram.bare(code)
            for a in InstructionTests.corners {
                for b in form.description.contains("K") ? [1] : InstructionTests.corners {
                    let packet = Asm.words([a, b, 0, 0, 0, 0, 0, 0])
                    let ours = Bench(bufferSize: 400).run(program, packet).outcome
                    try #require(ours == kernel.run(packet), "\(form), a \(String(a, radix: 16)), b \(String(b, radix: 16))")
                    runs += 1
                }
            }
        }
        #expect(runs > 40_000)
    }

    /// f(n): store n at the frame's far end, call f(n - 1), add what is still there.
    static func nested(_ depth: Int32) -> [I] {
        [Asm.mov(1, imm: depth), Asm.callLocal(2), Asm.alu(0xbf, 0, 0), Asm.exit,
         Asm.store(Asm.double, 10, -512, 1), Asm.mov(0, imm: 0), I(opcode: 0x15, destination: 1, offset: 4), Asm.alu(0x07, 1, imm: -1),
         Asm.callLocal(-5), Asm.load(Asm.double, 1, 10, -512), Asm.alu(0x0f, 0, 1), Asm.exit]
    }

    /// Eight frames deep, each with its own 512 bytes; the ninth is refused by the verifier and aborts here.
    @Test func framesAreSeparate() throws {
        let seven = try LoadedProgram.bare(InstructionTests.nested(6))
        #expect((Bench().run(seven, [UInt8](repeating: 0, count: 64))).r0 == 21)
        let eight = try LoadedProgram.bare(InstructionTests.nested(7))
        let run = Bench().run(eight, [UInt8](repeating: 0, count: 64))
        #expect(run.effect.verdict == .aborted)
    }

    @Test func contextFields() throws {
        for (offset, expected): (Int16, UInt64) in [(12, 7), (16, 3), (20, 0)] {
            let program = try LoadedProgram.bare([Asm.load(Asm.word, 0, 1, offset), Asm.exit])
            #expect((Bench().run(program, [UInt8](repeating: 0, count: 20))).r0 == expected)
        }
        // data_end - data, and data - data_meta.
        let length = try LoadedProgram.bare([Asm.load(Asm.word, 0, 1, 4), Asm.load(Asm.word, 2, 1, 0), Asm.alu(0x1f, 0, 2), Asm.exit])
        #expect((Bench().run(length, [UInt8](repeating: 0, count: 77))).r0 == 77)
        let meta = try LoadedProgram.bare([Asm.load(Asm.word, 0, 1, 0), Asm.load(Asm.word, 2, 1, 8), Asm.alu(0x1f, 0, 2), Asm.exit])
        #expect((Bench(metadata: 12).run(meta, [UInt8](repeating: 0, count: 77))).r0 == 12)
    }

    @Test func verdicts() throws {
        for (value, verdict): (Int32, XDPVerdict) in [(0, .aborted), (1, .drop), (2, .pass), (3, .tx), (4, .redirect), (5, .aborted), (-1, .aborted)] {
            let program = try LoadedProgram.bare([Asm.mov(0, imm: value), Asm.exit])
            #expect((Bench().run(program, [UInt8](repeating: 0, count: 20))).effect.verdict == verdict)
        }
        // The upper half of r0 is not part of the answer.
        let program = try LoadedProgram.bare(Asm.load64(0, 0x1_0000_0002) + [Asm.exit])
        #expect((Bench().run(program, [UInt8](repeating: 0, count: 20))).effect.verdict == .pass)
    }

    @Test(arguments: [
        (I(opcode: 0x20, immediate: 12), "instruction 200000000c000000 is not supported"),        // legacy packet load
        (I(opcode: 0xdb, destination: 1, immediate: 0x100), "is not supported"),                    // load-acquire
        (I(opcode: 0xe5, offset: 1), "is not supported"),                                          // may_goto
        (I(opcode: 0x8d, destination: 1), "is not supported"),                                     // callx
        (I(opcode: 0x37, destination: 1, offset: 2, immediate: 1), "is not supported"),
        (I(opcode: 0xbf, destination: 11), "no register above r10"),
        (I(opcode: 0x05, offset: 100), "jumps to 101, which is no instruction"),
        (I(opcode: 0x85, immediate: 14), "helper bpf_get_current_pid_tgid is not supported"),
        (I(opcode: 0x85, immediate: 9999), "helper number 9999 is not supported"),
        (I(opcode: 0x18), "64-bit load is cut off"),
    ])
    func refusals(_ instruction: Instruction, _ message: String) throws {
        let error = #expect(throws: LoadError.self) { try LoadedProgram.bare([instruction, Asm.exit]) }
        #expect(error?.description.contains(message) == true, "\(error?.description ?? "")")
        #expect(error?.instruction == 0)
    }
}
