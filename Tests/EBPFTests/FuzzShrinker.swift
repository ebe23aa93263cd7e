@testable import EBPF

/// Makes a case that fails smaller as long as it goes on failing: fewer packets, fewer instructions, smaller numbers.
struct FuzzShrinker {
    /// Whether the kernel takes it and some engine disagrees.
    let fails: (FuzzProgram) -> Bool

    /// What a privileged program finds on a stack it never wrote is no engine's business: the shrunk one writes it all.
    private static let frameWords = 10

    func shrink(_ whole: FuzzProgram) -> FuzzProgram {
        let filled = FuzzShrinker.filled(whole)
        guard fails(filled) else { return whole }
        let original = filled
        var best = original
        for packet in original.packets {
            let alone = FuzzProgram(code: best.code, packets: [packet])
            if fails(alone) {
                best = alone
                break
            }
        }
        var before: FuzzProgram
        repeat {
            before = best
            removeInstructions(&best)
            simplify(&best)
        } while best != before
        shorten(&best)
        return best
    }

    /// Runs of instructions, long ones first.
    private func removeInstructions(_ best: inout FuzzProgram) {
        var length = max(1, best.code.count / 2)
        while length >= 1 {
            var at = 0
            while at < best.code.count {
                let range = at..<min(at + length, best.code.count)
                let fills = best.functions.contains { range.overlaps($0..<($0 + FuzzShrinker.frameWords)) }
                if !fills, let code = FuzzShrinker.without(range, best.code) {
                    let candidate = FuzzProgram(code: code, packets: best.packets)
                    if fails(candidate) {
                        best = candidate
                        continue
                    }
                }
                at += length
            }
            length /= 2
        }
    }

    /// Each function begins with stores over the frame.
    private static func filled(_ program: FuzzProgram) -> FuzzProgram {
        var code = program.code
        for start in program.functions.reversed() {
            let stores = (1...frameWords).map { Asm.store(Asm.double, 10, Int16(-8 * $0), imm: 0) }
            var result: [Instruction] = []
            for (at, old) in code.enumerated() {
                if at == start { result += stores }
                // Where things lie with the stores; who calls the function calls its first store.
                func place(_ target: Int) -> Int { target > start ? target + frameWords : target }
                func jumped(_ target: Int) -> Int { target >= start ? target + frameWords : target }
                var i = old
                let here = result.count
                FuzzShrinker.retarget(&i, at, here) { FuzzProgram.function(old, at) != nil ? place($0) : jumped($0) }
                result.append(i)
            }
            code = result
        }
        return FuzzProgram(code: code, packets: program.packets)
    }

    /// Points a jump, a call or a function's address from `at` to the same instruction when it lies at `here`.
    private static func retarget(_ i: inout Instruction, _ at: Int, _ here: Int, _ place: (Int) -> Int) {
        if let target = FuzzProgram.function(i, at) {
            i.immediate = Int32(place(target) - here - 1)
        } else if i.opcode == 0x06 {
            i.immediate = Int32(place(at + 1 + Int(i.immediate)) - here - 1)
        } else if i.instructionClass == 0x05 || i.instructionClass == 0x06, i.opcode >> 4 != 0x8, i.opcode >> 4 != 0x9 {
            i.offset = Int16(place(at + 1 + Int(i.offset)) - here - 1)
        }
    }

    /// The code without a range, jumps and calls mended; nil where halves of a 64-bit load would be left.
    static func without(_ range: Range<Int>, _ code: [Instruction]) -> [Instruction]? {
        if range.count >= code.count { return nil }
        func isSecondHalf(_ at: Int) -> Bool { at > 0 && at < code.count && code[at - 1].isLoadImmediate64 }
        if isSecondHalf(range.lowerBound) || isSecondHalf(range.upperBound) { return nil }
        /// Where an instruction lies now; of a removed one, the next that is left.
        func place(_ at: Int) -> Int { at < range.lowerBound ? at : max(range.lowerBound, at - range.count) }
        var result: [Instruction] = []
        for (at, old) in code.enumerated() where !range.contains(at) {
            var i = old
            let here = result.count
            retarget(&i, at, here, place)
            result.append(i)
        }
        return result
    }

    private func simplify(_ best: inout FuzzProgram) {
        for at in best.code.indices {
            let i = best.code[at]
            // Jumps' and calls' numbers are places.
            guard i.immediate != 0, i.opcode != 0x06, !i.isCall, !i.isLoadImmediate64, i.opcode & 0xf7 != 0xd4, i.opcode != 0xd7,
                  i.opcode & 0xe7 != 0xc3 else { continue }
            for smaller: Int32 in [0, 1] where smaller != i.immediate {
                var candidate = best
                candidate.code[at].immediate = smaller
                if fails(candidate) {
                    best = candidate
                    break
                }
            }
        }
    }

    private func shorten(_ best: inout FuzzProgram) {
        for at in best.packets.indices {
            for count in [14, 20, 34, 60] where count < best.packets[at].count {
                var candidate = best
                candidate.packets[at] = Array(best.packets[at].prefix(count))
                if fails(candidate) {
                    best = candidate
                    break
                }
            }
            var zeroed = best
            zeroed.packets[at] = [UInt8](repeating: 0, count: best.packets[at].count)
            if fails(zeroed) { best = zeroed }
        }
    }
}
