import Testing

@testable import EBPF

/// Ways around a branch on the field that its value could take unseen: each of these is a look, though every state by
/// itself knows all numbers involved. The states behind such a branch may be kept apart (other facts, other pointers),
/// and then each is sure of what the other one contradicts.
@Suite struct AnalysisTaintTests {
    static let map = MapDefinition(name: "m", type: 2, keySize: 4, valueSize: 16, maxEntries: 1, flags: 0)
    static let other = MapDefinition(name: "n", type: 2, keySize: 4, valueSize: 16, maxEntries: 1, flags: 0)

    /// r9 = context, r8 = a map's value, r6 = data of an IPv4 TCP packet without options, r1 = the field. `body`
    /// keeps r6 to r9.
    static func program(_ body: [Instruction], leave: [Instruction] = [Asm.mov(0, imm: 2), Asm.exit]) -> [Instruction] {
        func unless(_ register: UInt8, is value: Int32) -> [Instruction] { [Asm.alu(0x15, register, offset: 2, imm: value), Asm.mov(0, imm: 1), Asm.exit] }
        var code = [Asm.mov(9, 1)] + mapAddress(1, 0)
        code += [Asm.store(Asm.word, 10, -4, imm: 0), Asm.mov(2, 10), Asm.alu(0x07, 2, imm: -4), Asm.call(1), Asm.mov(8, 0)]
        code += [Asm.alu(0x55, 8, offset: 2, imm: 0), Asm.mov(0, imm: 2), Asm.exit]
        code += [Asm.load(Asm.word, 6, 9, 0), Asm.load(Asm.word, 7, 9, 4), Asm.mov(2, 6), Asm.alu(0x07, 2, imm: 64)]
        code += [Asm.alu(0xbd, 2, 7, offset: 2), Asm.mov(0, imm: 1), Asm.exit]
        code += [Asm.load(Asm.half, 1, 6, 12)] + unless(1, is: 8) + [Asm.load(Asm.byte, 1, 6, 23)] + unless(1, is: 6)
        code += [Asm.load(Asm.byte, 1, 6, 14), Asm.alu(0x57, 1, imm: 15)] + unless(1, is: 5)
        return code + [Asm.load(Asm.half, 1, 6, 50)] + body + leave
    }

    static func mapAddress(_ register: UInt8, _ map: Int32) -> [Instruction] {
        [Instruction(opcode: 0x18, destination: register, source: 1, immediate: map), Instruction(opcode: 0)]
    }

    /// A branch on the field behind which the states stay apart: r2 points to one place or another, which r3 keeps alive.
    static func apart(_ register: UInt8, _ here: Int32, _ there: Int32) -> [Instruction] {
        [Asm.mov(2, 6), Asm.mov(register, imm: there), Asm.alu(0x55, 1, offset: 3, imm: 0x1234),
         Asm.alu(0x07, 2, imm: 4), Asm.mov(register, imm: here), Asm.mov(0, imm: 0), Asm.mov(3, 2)]
    }

    struct Case: CustomStringConvertible {
        let description: String
        let isLook: Bool
        let body: [Instruction]
        init(_ description: String, isLook: Bool = true, _ body: [Instruction]) { (self.description, self.isLook, self.body) = (description, isLook, body) }
    }

    static let toMap = [Asm.store(Asm.word, 8, 0, 7)]

    static let cases: [Case] = [
        Case("nothing of it", isLook: false, []),
        Case("stored back", isLook: false, [Asm.alu(0x07, 1, imm: 3), Asm.store(Asm.half, 6, 50, 1)]),
        Case("a number per arm", apart(7, 5, 3) + toMap),
        Case("a number per arm, shifted", apart(7, 5, 3) + [Asm.alu(0x67, 7, imm: 1)] + toMap),
        Case("a number per arm, masked", apart(7, 5, 3) + [Asm.alu(0x57, 7, imm: 0xff)] + toMap),
        Case("a number per arm, one of them zero", apart(7, 0, 3) + [Asm.alu(0x57, 7, imm: 0xff)] + toMap),
        Case("a number per arm, then a branch", apart(7, 5, 3) + [Asm.alu(0x15, 7, offset: 1, imm: 3), Asm.store(Asm.word, 8, 0, imm: 1)]),
        Case("a number per arm, one of them zero, then a branch",
             apart(7, 0, 3) + [Asm.alu(0x67, 7, imm: 1), Asm.alu(0x15, 7, offset: 1, imm: 6), Asm.store(Asm.word, 8, 0, imm: 1)]),
        Case("a mask per arm", apart(4, 0xff, 0xf0) + [Asm.load(Asm.byte, 7, 6, 0), Asm.alu(0x5f, 7, 4)] + toMap),
        Case("a mask per arm, as the destination", apart(7, 0xff, 0xf0) + [Asm.load(Asm.byte, 4, 6, 0), Asm.alu(0x5f, 7, 4)] + toMap),
        Case("a shift per arm", apart(4, 1, 2) + [Asm.load(Asm.byte, 7, 6, 0), Asm.alu(0x6f, 7, 4)] + toMap),
        Case("a right shift per arm", apart(4, 1, 2) + [Asm.load(Asm.byte, 7, 6, 0), Asm.alu(0x7f, 7, 4)] + toMap),
        Case("a factor per arm", apart(4, 1, 2) + [Asm.load(Asm.byte, 7, 6, 0), Asm.alu(0x2f, 7, 4)] + toMap),
        Case("a map per arm",
             mapAddress(7, 0) + [Asm.alu(0x55, 1, offset: 2, imm: 0x1234)] + mapAddress(7, 1)
                + [Asm.mov(1, 7), Asm.mov(2, 10), Asm.alu(0x07, 2, imm: -4), Asm.call(1),
                   Asm.alu(0x15, 0, offset: 1, imm: 0), Asm.store(Asm.word, 0, 0, imm: 1)]),
        Case("a number per arm that both forget", isLook: false, apart(7, 5, 3) + [Asm.alu(0x57, 7, imm: 0)] + toMap),
        Case("the same in both arms", isLook: false,
             [Asm.mov(7, imm: 3), Asm.alu(0x55, 1, offset: 1, imm: 0x1234), Asm.alu(0x07, 1, imm: 1)] + toMap),
        Case("bytes beside the field", isLook: false, [Asm.load(Asm.word, 7, 6, 50), Asm.alu(0x77, 7, imm: 16)] + toMap),
        Case("bytes beside the field, mixed", [Asm.load(Asm.word, 7, 6, 50), Asm.alu(0x77, 7, imm: 12)] + toMap),
    ]

    @Test(arguments: cases) func looks(_ test: Case) throws {
        let linked = LinkedProgram(name: "bare", instructions: AnalysisTaintTests.program(test.body), maps: [AnalysisTaintTests.map, AnalysisTaintTests.other])
        let analysis = Analysis.of(linked)
        #expect(analysis.limit == nil)
        #expect(analysis.canLook == test.isLook, "\(analysis.sinks)")
    }
}
