import Testing

@testable import EBPF

/// The helpers that move a packet's ends, and what a run reports of them.
@Suite struct AdjustTests {
    /// Up to four commands in the packet's first bytes, read before any is done: kind, then a 16-bit distance. What each
    /// returned goes to a map; at the end a byte is stored at the packet's start, and one at 20.
    static let source = """
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __s64); __uint(max_entries, 4); } results SEC(".maps");
        struct command { __u16 kind; __s16 distance; };

        static __always_inline void perform(struct xdp_md *ctx, struct command *command, __u32 slot)
        {
            __s64 result = 77;
            switch (command->kind & 3) {
            case 0: result = bpf_xdp_adjust_head(ctx, command->distance); break;
            case 1: result = bpf_xdp_adjust_tail(ctx, command->distance); break;
            case 2: result = bpf_xdp_adjust_meta(ctx, command->distance); break;
            }
            bpf_map_update_elem(&results, &slot, &result, BPF_ANY);
        }

        SEC("xdp") int adjust(struct xdp_md *ctx)
        {
            struct command commands[4];
            __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
            if (data + 30 > end) return XDP_DROP;
            __builtin_memcpy(commands, data + 14, 16);
            for (int i = 0; i < 4; i++)
                perform(ctx, &commands[i], i);
            data = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
            if (data + 1 <= end) data[0] = 0x5a;
            if (data + 21 <= end) data[20] = 0x5b;
            return XDP_TX;
        }
        """

    struct Command { let kind: UInt16, distance: Int16 }

    static func packet(_ commands: [Command], size: Int, _ random: inout SplitMix) -> [UInt8] {
        var bytes = (0..<size).map { _ in UInt8.random(in: 0...255, using: &random) }
        for i in 0..<4 {
            let command = i < commands.count ? commands[i] : Command(kind: 3, distance: 0)
            let distance = UInt16(bitPattern: command.distance)
            bytes.replaceSubrange((14 + 4 * i)..<(18 + 4 * i), with: [
                UInt8(command.kind), 0, UInt8(distance & 0xff), UInt8(distance >> 8)])
        }
        return bytes
    }

    /// Every byte of the final packet that is new or differs is reported, counted as the packet arrived.
    private static func isCovered(_ before: [UInt8], _ run: Bench.Run) -> Bool {
        for (i, byte) in run.bytes.enumerated() {
            let old = i + Int(run.effect.headDelta)
            if before.indices.contains(old) && before[old] == byte { continue }
            if !run.effect.written.names(old) { return false }
        }
        return true
    }

    static func random(_ random: inout SplitMix) -> (commands: [Command], size: Int) {
        let commands = (0..<Int.random(in: 0...4, using: &random)).map { _ in
            let kind = UInt16.random(in: 0...2, using: &random)
            let reach = [4, 20, 60, 250, 4000].randomElement(using: &random)!
            let distance = Int16.random(in: Int16(-reach)...Int16(reach), using: &random)
            return Command(kind: kind, distance: kind == 2 ? distance & ~3 : distance)
        }
        return (commands, Int.random(in: 30...300, using: &random))
    }

    /// Headroom as in the kernel, then so little that the packet must be moved: the program cannot tell.
    @Test(arguments: [256, 128, 40, 0]) func equalsTheKernel(_ headroom: Int) throws {
        let path = try Objects.source(AdjustTests.source)
        let program = try ProgramLoader.load(object: path, program: nil, verify: .kernel)
        let kernel = try KernelTwin(object: path)
        var random = SplitMix(UInt64(headroom))
        var moved = 0, refused = 0, accepted = 0
        for number in 0..<4000 {
            let (commands, size) = AdjustTests.random(&random)
            let packet = AdjustTests.packet(commands, size: size, &random)
            var bench = Bench()
            bench.headroom = headroom
            bench.filler = 0
            // With other headroom the kernel's limit on the tail cannot be met exactly: keep away from it.
            if headroom != 256 {
                bench.bufferSize = 8192
                if commands.reduce(0, { $1.kind == 1 ? $0 + max(0, Int($1.distance)) : $0 }) > 2500 { continue }
            }
            let run = bench.run(program, packet)
            try #require(run.outcome == kernel.run(packet), "\(number): \(commands)")
            try #require(program.map(named: "results")?.contents == kernel.entries("results"), "\(number): \(commands)")
            try #require(AdjustTests.isCovered(packet, run), "\(number): \(commands) \(run.effect)")
            try #require(run.effect.tailDelta == Int32(run.bytes.count - packet.count) + run.effect.headDelta)
            try #require(run.effect.lowestEnd <= min(0, run.effect.tailDelta))
            if run.effect.moved { moved += 1 }
            for (slot, _) in commands.enumerated() {
                if try program.map(named: "results")?.lookup([UInt8(slot), 0, 0, 0]) == Asm.words([0]) { accepted += 1 } else { refused += 1 }
            }
        }
        #expect(accepted > 1000 && refused > 1000)
        #expect(headroom >= 216 ? moved == 0 : moved > 50)
    }

    private func run(_ commands: [Command], size: Int = 100, _ bench: Bench = Bench()) throws -> Bench.Run {
        let program = try ProgramLoader.load(object: try Objects.source(AdjustTests.source), program: nil, verify: .kernel)
        #expect(program.canWrite)
        var random = SplitMix(1)
        return bench.run(program, AdjustTests.packet(commands, size: size, &random))
    }

    /// Encapsulation: 20 bytes in front, exposed bytes count as written; the store at 20 is the arrival's first byte.
    @Test func grownHead() throws {
        let effect = try run([Command(kind: 0, distance: -20)]).effect
        #expect(effect.headDelta == -20 && effect.tailDelta == 0 && effect.lowestEnd == 0 && !effect.moved)
        #expect(effect.written.ranges == [ByteRange(-20, 1)])
    }

    /// Nothing but growing: the exposed bytes alone, up to the old start.
    @Test func exposedBytesAreWritten() throws {
        let code = [Asm.mov(6, 1), Asm.mov(2, imm: -18), Asm.call(44), Asm.mov(0, imm: 2), Asm.exit]
        let effect = (Bench().run(try LoadedProgram.bare(code), [UInt8](repeating: 1, count: 60))).effect
        #expect(effect.written.ranges == [ByteRange(-18, 0)] && effect.headDelta == -18)
    }

    /// Decapsulation beyond the L3 header: what is stored at the new start lies above it.
    @Test func shrunkHead() throws {
        let effect = try run([Command(kind: 0, distance: 34)]).effect
        #expect(effect.headDelta == 34 && effect.tailDelta == 0)
        #expect(effect.written.ranges == [ByteRange(34, 35), ByteRange(54, 55)])
    }

    /// The contract's example: cut by 8 and grown by 8 leaves no delta, and eight bytes zeroed without a store.
    @Test func cutAndGrownTail() throws {
        let result = try run([Command(kind: 1, distance: -8), Command(kind: 1, distance: 8)])
        #expect(result.effect.tailDelta == 0 && result.effect.lowestEnd == -8 && result.effect.headDelta == 0)
        #expect(result.effect.written.ranges == [ByteRange(0, 1), ByteRange(20, 21), ByteRange(92, 100)])
        #expect(Array(result.bytes[92..<100]) == [UInt8](repeating: 0, count: 8))
    }

    /// Metadata is no packet byte; it moves with the head.
    @Test func metadataIsNotWritten() throws {
        let result = try run([Command(kind: 2, distance: -8), Command(kind: 0, distance: -4)])
        #expect(result.effect.written.ranges == [ByteRange(-4, 0), ByteRange(16, 17)])     // the new head, and the store at 20
        #expect(result.data - result.meta == 8)
    }

    @Test func movesOnceAndKeepsMetadata() throws {
        var bench = Bench()
        bench.headroom = 24
        bench.metadata = 16
        let result = try run([Command(kind: 0, distance: -100), Command(kind: 0, distance: -100)], bench)
        #expect(result.effect.moved && result.effect.headDelta == -200)
        #expect(result.data - result.meta == 16)
        #expect(result.meta >= 0)
        #expect(Array(result.buffer[result.meta..<result.data]) == [UInt8](repeating: 0xa5, count: 16))
        #expect(result.bytes.count == 300)
    }

    /// Neither headroom nor tailroom: refused, nothing moved.
    @Test func noRoomAtAll() throws {
        var bench = Bench()
        bench.headroom = 10
        bench.bufferSize = 115
        let result = try run([Command(kind: 0, distance: -16)], bench)
        #expect(result.effect.headDelta == 0 && !result.effect.moved && result.bytes.count == 100)
        // One byte more of tailroom is enough.
        bench.bufferSize = 116
        #expect(try run([Command(kind: 0, distance: -16)], bench).effect.headDelta == -16)
    }

    @Test func multiBufferTailIsRefused() throws {
        let result = try run([Command(kind: 1, distance: -8)], Bench(isMultiBuffer: true))
        #expect(result.effect.tailDelta == 0 && result.bytes.count == 100)
    }

    /// Each byte by itself.
    @Test func storesToTheByte() throws {
        let code = [Asm.load(Asm.word, 6, 1, 0), Asm.store(Asm.word, 6, 12, imm: 0), Asm.mov(0, imm: 2), Asm.exit]
        let program = try LoadedProgram.bare(code)
        let effect = (Bench().run(program, [UInt8](repeating: 1, count: 60))).effect
        #expect(effect.written.ranges == [ByteRange(12, 16)])
        // Atomics count as stores; a store to the stack or to metadata does not.
        let atomic = try LoadedProgram.bare([Asm.load(Asm.word, 6, 1, 0), Asm.mov(2, imm: 1), Asm.atomic(true, 1, 6, 32, 2), Asm.mov(0, imm: 2), Asm.exit])
        #expect((Bench().run(atomic, [UInt8](repeating: 1, count: 60))).effect.written.ranges == [ByteRange(32, 40)])
        let elsewhere = try LoadedProgram.bare([Asm.load(Asm.word, 6, 1, 8), Asm.store(Asm.word, 6, 0, imm: 0), Asm.store(Asm.word, 10, -4, imm: 0), Asm.mov(0, imm: 2), Asm.exit])
        let run = Bench(metadata: 4).run(elsewhere, [UInt8](repeating: 1, count: 60))
        #expect(!run.effect.wrote)
        #expect(Array(run.buffer[252..<256]) == [0, 0, 0, 0])
    }
}
