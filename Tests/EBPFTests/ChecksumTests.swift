import Testing

@testable import EBPF

/// `bpf_csum_diff` against a byte-at-a-time twin and against the kernel.
@Suite struct ChecksumTests {
    /// RFC 1071 a byte at a time, little-endian halves as the kernel's words have them; only the value modulo 0xffff and
    /// "nothing but zeros" count.
    private func twin(_ from: [UInt8], _ to: [UInt8], _ seed: UInt32) -> UInt64 {
        func words(_ bytes: [UInt8], _ total: inout UInt64, negated: Bool) {
            for (i, byte) in bytes.enumerated() {
                let value = UInt64(negated ? ~byte : byte)
                total += i % 2 == 0 ? value : value << 8
            }
            if negated && bytes.count % 2 != 0 { total += 0xff00 }       // the padding is negated too
        }
        var total = UInt64(seed & 0xffff) + UInt64(seed >> 16)
        words(to, &total, negated: false)
        words(from, &total, negated: true)
        while total > 0xffff { total = (total & 0xffff) + (total >> 16) }
        return total
    }

    private func ours(_ from: [UInt8], _ to: [UInt8], _ seed: UInt32) -> Int64 {
        unsafe from.withUnsafeBytes { f in
            unsafe to.withUnsafeBytes { t in
                Helpers.csumDiff(UInt64(UInt(bitPattern: f.baseAddress)), UInt64(from.count),
                                        UInt64(UInt(bitPattern: t.baseAddress)), UInt64(to.count), UInt64(seed))
            }
        }
    }

    @Test func equalsTheSlowTwin() {
        var random = SplitMix(3)
        for _ in 0..<4000 {
            let from = (0..<Int.random(in: 0...160, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            let to = (0..<Int.random(in: 0...160, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            let seed = UInt32.random(in: .min ... .max, using: &random)
            // The two zeros of ones' complement are compared with the kernel below.
            #expect(UInt64(ours(from, to, seed)) % 0xffff == twin(from, to, seed) % 0xffff)
        }
    }

    /// Worked out by hand: 0x0a000064 to 0x0a000002 as bytes, from a complemented check field.
    @Test func addressByHand() {
        // Sum of ~(0x000a + 0x6400) + (0x000a + 0x0200) + 0x1234 in little-endian halves: 0x1234 - 0x6400 + 0x0200.
        #expect(ours([10, 0, 0, 100], [10, 0, 0, 2], 0x1234) == Int64(0x1234 - 0x6400 + 0x0200 + 0xffff))
        #expect(ours([], [1, 0, 0, 0], 0xffff) == 1)
        #expect(ours([], [], 0x1_ffff) == 1)
        #expect(ours([], [1, 2, 3], 0) == 0x0201 + 3)
    }

    static let source = """
        // Bytes 0 to 15 of the packet say: sizes (0 to 64) of both sides, seed; the sides follow. Result at 16.
        SEC("xdp") int diff(struct xdp_md *ctx)
        {
            void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
            if (data + 160 > end) return XDP_DROP;
            __u32 *head = data;
            __u64 from[8], to[8];
            __builtin_memcpy(from, data + 32, 64);
            __builtin_memcpy(to, data + 96, 64);
            __u32 from_size = head[0], to_size = head[1];
            if (from_size > 64 || to_size > 64) return XDP_DROP;
            __s64 result = bpf_csum_diff((void *)from, from_size, (void *)to, to_size, head[2]);
            *(__s64 *)(data + 16) = result;
            return XDP_PASS;
        }
        """

    @Test func equalsTheKernel() throws {
        let path = try Objects.source(ChecksumTests.source)
        let program = try ProgramLoader.load(object: path, program: nil, verify: .kernel)
        let kernel = try KernelTwin(object: path)
        var random = SplitMix(5)
        var seen: Set<UInt64> = []
        for round in 0..<6000 {
            let side: (inout SplitMix) -> [UInt8] = { random in
                let filler: UInt8? = [nil, nil, 0, 0xff].randomElement(using: &random)!
                return (0..<64).map { _ in filler ?? UInt8.random(in: 0...255, using: &random) }
            }
            let size: (inout SplitMix) -> UInt32 = { random in
                round % 3 == 0 ? UInt32.random(in: 0...66, using: &random) : 4 * UInt32.random(in: 0...16, using: &random)
            }
            let seed = [0, 0xffff, 0xffff_0000, 0xffff_ffff, UInt32.random(in: .min ... .max, using: &random)].randomElement(using: &random)!
            let head = [UInt64(size(&random)) | UInt64(size(&random)) << 32, UInt64(seed), 0, 0]
            let packet = Asm.words(head) + side(&random) + side(&random)
            let run = Bench().run(program, packet)
            try #require(run.outcome == kernel.run(packet), "round \(round): \(packet)")
            seen.insert(Asm.word(run.bytes, 2))
        }
        // Both zeros and much else came up.
        #expect(seen.contains(0) && seen.contains(0xffff) && seen.count > 1000)
    }
}
