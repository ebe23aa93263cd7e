/// A copy of an object for a verifier whose kernel lacks functions that the engine has: each call of one becomes a call
/// of a helper with the same effect on what the verifier knows. Both leave memory alone, and a number nobody knows in
/// r0. Only verified, never run.
enum StubbedObject {
    /// `bpf_get_prandom_u32`
    static let call = Instruction(opcode: 0x85, immediate: 7)
    /// What a call comes down to here, `r0 = -EOPNOTSUPP`: for tests that run the same in the kernel.
    static let refusal = Instruction(opcode: 0xb7, immediate: -95)

    static func make(_ bytes: [UInt8], functions: Set<String>, by call: Instruction = call) throws(Malformed) -> [UInt8] {
        let file = ByteView(bytes)
        let table = Int(try file.u64(40)), count = Int(try file.u16(60))
        func header(_ index: Int) -> Int { table + index * 64 }
        var result = bytes
        var stubbed: Set<Int> = []
        for index in 0..<count where try file.u32(header(index) + 4) == ELFFile.Section.symtab {
            let at = Int(try file.u64(header(index) + 24)), size = Int(try file.u64(header(index) + 32))
            let names = Int(try file.u64(header(Int(try file.u32(header(index) + 40))) + 24))
            for place in stride(from: at, to: at + size, by: 24) where try file.u16(place + 6) == 0 {
                guard functions.contains(try file.string(UInt32(clamping: names + Int(try file.u32(place))))) else { continue }
                stubbed.insert((place - at) / 24)
                // libbpf wants to find what it is not weak.
                result[place + 4] = ELFFile.Symbol.weak << 4 | result[place + 4] & 0xf
            }
        }
        for index in 0..<count where try file.u32(header(index) + 4) == ELFFile.Section.rel {
            let at = Int(try file.u64(header(index) + 24)), size = Int(try file.u64(header(index) + 32))
            let target = Int(try file.u64(header(Int(try file.u32(header(index) + 44))) + 24))
            var kept = at
            for place in stride(from: at, to: at + size, by: 16) {
                let code = target + Int(try file.u64(place))
                if stubbed.contains(Int(try file.u64(place + 8) >> 32)), try file.u8(code) == 0x85, code + 8 <= bytes.count {
                    result.replaceSubrange(code..<(code + 8), with: call.encoded)
                } else {
                    result.replaceSubrange(kept..<(kept + 16), with: bytes[place..<(place + 16)])
                    kept += 16
                }
            }
            let left = UInt64(kept - at)
            for byte in 0..<8 { result[header(index) + 32 + byte] = UInt8(truncatingIfNeeded: left >> (8 * byte)) }
        }
        return result
    }
}
