import Foundation
import Testing

@testable import EBPF

/// CO-RE. Loading holds our instructions against libbpf's; what a program finds out is checked besides, by running it
/// here and in the kernel.
@Suite struct CoreTests {
    /// What the macros of libbpf's bpf_core_read.h come down to, without its vmlinux.h.
    private static let macros = """
        #define RELOC(kind, expression) __builtin_preserve_field_info(expression, kind)
        #define TYPE(kind, type) __builtin_preserve_type_info(*(typeof(type) *)0, kind)
        #define KERNEL __attribute__((preserve_access_index))
        #define ANSWERS(...) \\
            volatile __u64 answers[64]; \\
            SEC("xdp") int ask(struct xdp_md *ctx) { __u64 values[] = {__VA_ARGS__}; \\
                for (int i = 0; i < (int)(sizeof(values) / 8); i++) answers[i] = values[i]; return XDP_PASS; }

        """

    private static func object(_ text: String) throws -> String { try Objects.source(macros + text) }

    /// What `answers` holds after a run; the kernel's run has the same.
    private static func answers(_ path: String, count: Int, _ kernel: TargetKernel = .running, compared: Bool = true) throws -> [UInt64] {
        let program = try ProgramLoader.load(object: path, program: nil, verify: .kernel, kernel: kernel)
        let packet = [UInt8](repeating: 0, count: 64)
        #expect(Bench().run(program, packet).effect.verdict == .pass)
        let ours = try #require(try program.map(named: ".bss")?.lookup([0, 0, 0, 0]))
        if compared {
            let twin = try KernelTwin(object: path)
            #expect(twin.run(packet)?.verdict == 2)
            #expect(twin.entries(".bss").values.first == ours)
        }
        return (0..<count).map { Asm.word(ours, $0) }
    }

    /// Every kind of question, about types the running kernel has, has in another form, and has not.
    @Test func everyKindEqualsLibbpf() throws {
        let path = try CoreTests.object("""
            struct net_device { int ifindex; unsigned int mtu; char name[1]; } KERNEL;
            struct net_device___other { unsigned int no_such_member; } KERNEL;
            struct task_struct { int pid; unsigned long long start_time; const void *stack; } KERNEL;
            struct sk_buff { unsigned int len; unsigned char ip_summed : 2, encapsulation : 1; } KERNEL;
            struct no_such_type { int a; } KERNEL;
            enum xdp_action___flavour { XDP_TX___flavour = 77, XDP_NOT_THERE = 78 };
            enum no_such_enum { NOTHING = 3 };
            struct in6_addr___m { union { unsigned char u6_addr8[16]; unsigned short u6_addr16[8]; unsigned int u6_addr32[4]; } in6_u; };
            struct udphdr___less { unsigned short source; unsigned short dest; };
            struct udphdr___more { unsigned short source; unsigned short dest; unsigned short sink; };
            typedef unsigned char u8___t;
            #define AT(type, member, kind) RELOC(kind, ((type *)0)->member)
            ANSWERS(
                AT(struct net_device, ifindex, 0), AT(struct net_device, mtu, 0), AT(struct net_device, name, 1), AT(struct net_device, mtu, 2),
                AT(struct net_device___other, no_such_member, 2), AT(struct no_such_type, a, 2), AT(struct net_device, ifindex, 3), AT(struct net_device, mtu, 3),
                AT(struct task_struct, start_time, 0), AT(struct task_struct, stack, 1), AT(struct sk_buff, ip_summed, 0), AT(struct sk_buff, ip_summed, 1),
                AT(struct sk_buff, ip_summed, 3), AT(struct sk_buff, ip_summed, 4), AT(struct sk_buff, ip_summed, 5), AT(struct sk_buff, encapsulation, 4),
                TYPE(0, struct no_such_type), TYPE(0, struct net_device), TYPE(1, struct net_device), TYPE(1, struct no_such_type),
                TYPE(0, struct ethhdr), TYPE(0, enum xdp_action___flavour), TYPE(1, struct iphdr), TYPE(2, struct in6_addr___m),
                TYPE(2, struct udphdr___less), TYPE(2, struct udphdr___more), TYPE(2, struct ethhdr), TYPE(2, struct net_device),
                __builtin_preserve_enum_value(*(enum xdp_action___flavour *)XDP_TX___flavour, 0),
                __builtin_preserve_enum_value(*(enum xdp_action___flavour *)XDP_TX___flavour, 1),
                __builtin_preserve_enum_value(*(enum xdp_action___flavour *)XDP_NOT_THERE, 0),
                __builtin_preserve_enum_value(*(enum no_such_enum *)NOTHING, 0),
                __builtin_btf_type_id(*(struct net_device *)0, 1), __builtin_btf_type_id(*(struct no_such_type *)0, 1),
                __builtin_btf_type_id(*(struct no_such_type *)0, 0))
            """)
        let values = try CoreTests.answers(path, count: 35)
        let types = try TargetKernel.running.types()
        func member(_ structure: String, _ name: String) throws -> BTF.Member {
            let id = try #require(try types.type(named: structure, .structure))
            return try #require(try flat(types, id).first { $0.name == name })
        }
        let ifindex = try member("net_device", "ifindex"), mtu = try member("net_device", "mtu")
        #expect(values[0] == UInt64(ifindex.offset / 8) && values[1] == UInt64(mtu.offset / 8) && values[2] == 16)
        #expect(Array(values[3..<8]) == [1, 0, 0, 1, 0])
        #expect(values[8] == UInt64(try member("task_struct", "start_time").offset / 8) && values[9] == 8)
        // A bitfield of two bits: shifted left and right by these, the load of its bytes gives its value.
        let summed = try member("sk_buff", "ip_summed")
        #expect(summed.size == 2 && values[14] == 62 && values[13] == 64 &+ values[10] &* 8 &- UInt64(summed.offset + 2) && values[12] == 0)
        #expect(Array(values[16..<22]) == [0, 1, UInt64(try types.size(try #require(try types.type(named: "net_device", .structure)))), 0, 1, 1])
        // Likeness goes by the names of basic types, too, in which the compilers of kernel and object may differ: what these
        // answer is libbpf's to say, and compared with it above.
        #expect(values[22] == 20 && values[25] == 0 && values[27] == 0)
        #expect(Array(values[28..<32]) == [1, 3, 0, 0])
        #expect(values[32] == UInt64(try #require(try types.type(named: "net_device", .structure))) && values[33] == 0 && values[34] != 0)
    }

    /// Members, those of nameless members included, with offsets from the outermost.
    private func flat(_ types: BTF, _ id: UInt32, _ base: UInt32 = 0) throws -> [BTF.Member] {
        try types.type(id).members.flatMap { member -> [BTF.Member] in
            if member.name.isEmpty { return try flat(types, try types.strippedID(member.type), base + member.offset) }
            return [BTF.Member(name: member.name, type: member.type, offset: base + member.offset, size: member.size)]
        }
    }

    /// Loads are rewritten, to other sizes too; what the kernel lacks becomes an instruction that must not be reached.
    @Test func loadsAndStores() throws {
        let path = try CoreTests.object("""
            // As on some other kernel: other offsets, and a member that is twice as wide here.
            struct bpf_fib_lookup___old { unsigned int ifindex; unsigned short tos; unsigned char family; unsigned short gone; unsigned int ipv4_dst; } KERNEL;
            volatile __u64 answers[64];
            SEC("xdp") int ask(struct xdp_md *ctx)
            {
                volatile struct bpf_fib_lookup line = {.family = 2, .ifindex = 0x11223344, .tot_len = 9, .ipv4_dst = 0x0a000001};
                struct bpf_fib_lookup___old *old = (void *)&line;
                answers[0] = old->ifindex;
                answers[1] = old->family;
                answers[2] = old->ipv4_dst;
                if (RELOC(2, old->gone)) answers[3] = old->gone;
                else answers[3] = 99;
                old->ifindex = 5;
                answers[4] = line.ifindex;
                answers[5] = old->tos;
                return XDP_PASS;
            }
            """)
        #expect(try CoreTests.answers(path, count: 6) == [0x1122_3344, 2, 0x0a00_0001, 99, 5, 0])
        // The same against the table of known types, libbpf too.
        let blind = TargetKernel(types: "/nonexistent", configurations: [], symbols: "/nonexistent")
        #expect(try CoreTests.answers(path, count: 6, blind, compared: false) == [0x1122_3344, 2, 0x0a00_0001, 99, 5, 0])
    }

    /// Reached: refused, in words that name what is missing, its line and instruction.
    @Test func whatTheKernelLacksIsNamed() throws {
        let text = """
            struct net_device { int not_in_any_kernel; } KERNEL;
            SEC("xdp") int ask(struct xdp_md *ctx)
            {
                struct net_device *device = (void *)ctx;
                return device->not_in_any_kernel;
            }
            """
        let path = try CoreTests.object(text)
        let line = try #require((CoreTests.macros + text).components(separatedBy: "\n").firstIndex { $0.contains("return device->") }) + 1
        let error = #expect(throws: LoadError.self) { try ProgramLoader.load(object: path, program: nil, verify: .kernel) }
        #expect(error?.kind == .refused && error?.instruction != nil && error?.source?.line == line, "\(error as Any)")
        #expect(error?.message.contains("it reaches CO-RE relocation for the offset of net_device.not_in_any_kernel") == true, "\(error as Any)")
        // Unverified it loads, and a run that gets there ends.
        let unverified = try ProgramLoader.load(object: path, program: nil, verify: .sandbox)
        let run = Bench().run(unverified, [UInt8](repeating: 0, count: 64))
        #expect(run.effect.verdict == .aborted && run.effect.fault != .none)
    }

    /// Two types of one name that differ: libbpf refuses to choose, and so do we. Both kernels' types come from a table.
    @Test func ambiguity() throws {
        func resolver(_ kernel: String) throws -> (CoreResolver, BTF) {
            var local = TypeTable(), target = TypeTable()
            try local.declare("struct thing { u32 a; u32 b; };")
            try target.declare(kernel)
            let types = try BTF(ByteView(local.bytes))
            return (CoreResolver(local: types, target: try BTF(ByteView(target.bytes))), types)
        }
        func answer(_ kernel: String, _ access: String = "0:1", _ kind: CoreKind = .byteOffset) throws -> CoreResolver.Answer {
            let (resolver, types) = try resolver(kernel)
            let id = try #require(try types.type(named: "thing", .structure))
            return try resolver.answer(BTFExtension.CoreRecord(type: id, access: access, kind: kind.rawValue))
        }
        let error = #expect(throws: Malformed.self) { try answer("struct thing { u32 a; u32 b; }; struct thing___2 { u64 a; u32 b; };") }
        #expect(error?.message == "CO-RE relocation for the offset of thing.b: the kernel has several types of this name, which differ in it")
        #expect(try answer("struct thing { u32 a; u32 b; }; struct thing___2 { u32 c; u32 b; };").value == 4)
        #expect(try answer("struct thing { u32 a; }; struct thing___2 { u32 c; u64 d; u32 b; };").value == 16)
        #expect(try answer("struct other { u32 a; };").isAbsent)
        #expect(try answer("struct thing { u32 a; struct { u32 x; u32 b; }; };").value == 8)
        #expect(try answer("struct thing { u32 a; u8 b[4]; };").isAbsent)      // not an integer
        #expect(try answer("struct thing { u32 a; u64 b; };").size == 8)
        #expect(try answer("struct thing { s32 a; s64 b; };").cannotResize)
        #expect(try answer("struct thing { u32 a; u32 b : 5; u32 c; };").value == 4)
        #expect(try answer("struct thing { u32 z : 3; u32 b : 5; };", "0:1", .leftShift).value == 56)
        for access in ["", "0:2", "0:1:0", "x", "0:", ":0", "0:-1"] {
            #expect(throws: Malformed.self, "\(access)") { try answer("struct thing { u32 a; u32 b; };", access) }
        }
    }

    /// Each member of the table of known types lies where the running kernel has it.
    @Test func knownTypesAreTheKernels() throws {
        let known = UAPITypes.btf, kernel = try TargetKernel.running.types()
        var compared = 0
        for id in 1..<known.count {
            let record = try known.type(id)
            guard record.kind == .structure, !record.name.isEmpty, let other = try kernel.type(named: record.name, .structure) else { continue }
            #expect(record.sizeOrType == (try kernel.size(other)), "\(record.name)")
            let theirs = try flat(kernel, other)
            for member in try flat(known, id) {
                // A union of two names for the same bytes has them twice.
                let found = theirs.first { $0.name == member.name && $0.offset == member.offset && $0.size == member.size }
                #expect(found != nil, "\(record.name).\(member.name) at \(member.offset)")
                if let found { #expect(try kernel.size(found.type) == known.size(member.type), "\(record.name).\(member.name)") }
                compared += 1
            }
        }
        #expect(compared > 80)
    }

    /// The object's relocations may say anything: an answer or a sentence.
    @Test func mutatedRelocations() throws {
        let path = try CoreTests.object("""
            struct net_device { int ifindex; unsigned int mtu; } KERNEL;
            struct sk_buff { unsigned char ip_summed : 2; } KERNEL;
            ANSWERS(RELOC(0, ((struct net_device *)0)->mtu), RELOC(1, ((struct sk_buff *)0)->ip_summed), TYPE(1, struct net_device))
            """)
        let original = try Objects.bytes(path)
        let file = try ELFFile(original)
        var random = SplitMix(11), sentences: Set<String> = [], accepted = 0
        for name in [".BTF.ext", ".BTF"] {
            let table = Int(Asm.word(Array(original[40..<48]), 0)), index = try #require(file.sections.firstIndex { $0.name == name })
            let at = Int(Asm.word(Array(original[(table + index * 64 + 24)..<(table + index * 64 + 32)]), 0)), size = file.sections[index].data.count
            for _ in 0..<2000 {
                var bytes = original
                bytes[Int.random(in: (at + 24)..<(at + size), using: &random)] = [0, 1, 2, 0x80, 0xff, UInt8.random(in: 0...255, using: &random)].randomElement(using: &random)!
                do throws(LoadError) {
                    let object = try ObjectFile(name: "mutated.o", bytes: bytes)
                    for program in object.programs { _ = try Decoder.decode(try Linker.link(program, of: object)) }
                    accepted += 1
                } catch {
                    try #require(!error.message.isEmpty)
                    sentences.insert(error.message)
                }
            }
        }
        #expect(accepted > 500 && sentences.count > 20)
    }
}
