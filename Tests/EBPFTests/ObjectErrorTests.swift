import Testing

@testable import EBPF

/// Bad objects: one clear message each, never a crash.
@Suite struct ObjectErrorTests {
    private func refusal(_ path: String, _ program: String? = nil) -> LoadError? {
        do throws(LoadError) {
            _ = try ProgramLoader.load(object: path, program: program, verify: .kernel)
            return nil
        } catch {
            return error
        }
    }

    private func refusal(bytes: [UInt8]) throws -> LoadError? { refusal(try Objects.write(bytes)) }

    @Test func notAnObject() throws {
        #expect(refusal("/nonexistent/x.o")?.kind == .unreadable)
        #expect(try refusal(bytes: [])?.message == "not an ELF file")
        #expect(try refusal(bytes: [1, 2, 3, 4, 5])?.message == "not an ELF file")
        #expect(try refusal(bytes: [0x7f, 0x45, 0x4c, 0x46, 2])?.message == "truncated: an ELF header has 64 bytes, the file 5")
    }

    private func mutated(_ name: String, _ at: Int, _ values: UInt8...) throws -> [UInt8] {
        var bytes = try Objects.bytes(try Objects.program(name))
        bytes.replaceSubrange(at..<(at + values.count), with: values)
        return bytes
    }

    @Test func wrongHeaders() throws {
        #expect(try refusal(bytes: mutated("count", 4, 1))?.message == "not a 64-bit ELF file")
        #expect(try refusal(bytes: mutated("count", 5, 2))?.message == "big-endian: compile with -target bpfel")
        #expect(try refusal(bytes: mutated("count", 18, 62, 0))?.message == "made for machine 62, not for BPF (247): compile with -target bpf")
        #expect(try refusal(bytes: mutated("count", 16, 3, 0))?.message == "not a relocatable object")
        let table = try refusal(bytes: mutated("count", 40, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
        #expect(table?.message.hasPrefix("the section header table lies outside of its container") == true)
        #expect(try refusal(bytes: mutated("count", 60, 0, 0))?.message == "has no sections")
    }

    /// Cut anywhere, the file is refused before libbpf sees it.
    @Test(arguments: ProgramTests.names) func truncated(_ name: String) throws {
        let bytes = try Objects.bytes(try Objects.program(name))
        for count in Array(0..<256) + Array(stride(from: 256, to: bytes.count, by: 13)) {
            let error = #expect(throws: LoadError.self) { try ObjectFile(name: "cut.o", bytes: Array(bytes.prefix(count))) }
            try #require(error?.kind == .malformed && error?.message.isEmpty == false, "\(count)")
        }
    }

    /// Bytes changed anywhere: parsed, linked and decoded, or refused; nothing else happens. libbpf, which does crash on
    /// such objects, is not asked.
    @Test(arguments: ProgramTests.names) func mutatedAnywhere(_ name: String) throws {
        let original = try Objects.bytes(try Objects.program(name))
        var random = SplitMix(UInt64(name.utf8.count))
        var refused = 0, accepted = 0
        for _ in 0..<3000 {
            var bytes = original
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                bytes[at] = [0, 0xff, 0x80, UInt8.random(in: 0...255, using: &random)].randomElement(using: &random)!
            }
            do throws(LoadError) {
                let object = try ObjectFile(name: "mutated.o", bytes: bytes)
                for program in object.programs { _ = try Decoder.decode(try Linker.link(program, of: object)) }
                accepted += 1
            } catch {
                try #require(!error.message.isEmpty)
                refused += 1
            }
        }
        #expect(refused > 100 && accepted > 100)
    }

    struct Unsupported: CustomStringConvertible {
        let description: String
        let source: String
        let message: String
        /// Line of the test source the message must name.
        let line: Int
    }

    static let unsupported: [Unsupported] = [
        Unsupported(description: "helper", source: """
            SEC("xdp") int program(struct xdp_md *ctx) { struct bpf_sock_tuple tuple = {};
            {
                if (ctx->rx_queue_index == 3)
                    return bpf_sk_lookup_tcp(ctx, &tuple, 12, 0, 0) != 0;
                return 0;
            }}
            """, message: "helper bpf_sk_lookup_tcp is not supported yet", line: 4),
        Unsupported(description: "map type", source: """
            struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(key_size, 4); __uint(value_size, 4); __uint(max_entries, 2); } routes SEC(".maps");
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                __u32 key = 1;
                return bpf_map_lookup_elem(&routes, &key) ? 1 : 2;
            }
            """, message: "map routes: maps of type sockmap are not supported", line: 5),
        Unsupported(description: "kfunc", source: """
            extern int bpf_xdp_no_such_function(const struct xdp_md *ctx, __u32 *hash) __ksym;
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                __u32 hash;
                return bpf_xdp_no_such_function(ctx, &hash);
            }
            """, message: "kernel function bpf_xdp_no_such_function: the running kernel has no function of this name", line: 5),
        Unsupported(description: "kfunc with other arguments", source: """
            extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash) __ksym;
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                __u32 hash;
                return bpf_xdp_metadata_rx_hash(ctx, &hash);
            }
            """, message: "kernel function bpf_xdp_metadata_rx_hash: the object declares it with other arguments than the running kernel", line: 5),
        Unsupported(description: "kfunc Apus has not", source: """
            extern void bpf_rcu_read_lock(void) __ksym;
            extern void bpf_rcu_read_unlock(void) __ksym;
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                bpf_rcu_read_lock();
                bpf_rcu_read_unlock();
                return 0;
            }
            """, message: "kernel function bpf_rcu_read_lock is not supported yet", line: 5),
        Unsupported(description: "kernel variable", source: """
            struct rq;
            extern const struct rq runqueues __ksym;
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                return (long)&runqueues == 3;
            }
            """, message: "refers to the kernel's variable runqueues", line: 5),
        Unsupported(description: "symbol", source: """
            extern const void no_such_symbol_anywhere __ksym;
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                return (long)&no_such_symbol_anywhere == 3;
            }
            """, message: "the running kernel has no symbol no_such_symbol_anywhere", line: 4),
        Unsupported(description: "setting", source: """
            extern int CONFIG_NO_SUCH_SETTING __kconfig;
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                return CONFIG_NO_SUCH_SETTING;
            }
            """, message: "setting CONFIG_NO_SUCH_SETTING: the running kernel's configuration does not set it, and it is not weak", line: 4),
        Unsupported(description: "setting of the wrong type", source: """
            extern _Bool CONFIG_HZ __kconfig;
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                return CONFIG_HZ;
            }
            """, message: "which does not fit the variable's type", line: 4),
        Unsupported(description: "setting of an unknown name", source: """
            extern int LINUX_HAS_WINGS __kconfig;
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                return LINUX_HAS_WINGS;
            }
            """, message: "setting LINUX_HAS_WINGS: there is no setting of this name", line: 4),
    ]

    @Test(arguments: unsupported) func unsupportedIsNamed(_ test: Unsupported) throws {
        let path = try Objects.source(test.source)
        let error = try #require(refusal(path))
        #expect(error.kind == .unsupported)
        #expect(error.message.contains(test.message), "\(error)")
        #expect(error.program == "program" && error.instruction != nil && error.object == path)
        #expect(error.source == SourceLine(file: "test.bpf.c", line: test.line) || error.source?.line == test.line, "\(error)")
    }

    @Test func refusedByTheVerifier() throws {
        let path = try Objects.source("""
            SEC("xdp") int program(struct xdp_md *ctx)
            {
                __u8 *data = (void *)(long)ctx->data;
                return data[0];
            }
            """)
        let error = try #require(refusal(path))
        #expect(error.kind == .refused)
        #expect(error.description.hasPrefix("\(path): program program, instruction 1 ("), "\(error)")
        #expect(error.source?.file.hasSuffix("test.bpf.c") == true && error.source?.line == 4)
        #expect(error.message.hasPrefix("the kernel's verifier refuses it:\n"))
        #expect(error.message.hasSuffix("R1 offset is outside of the packet"))
        #expect(error.message.split(separator: "\n").count <= 9)
    }

    @Test func otherSections() throws {
        let none = try #require(refusal(try Objects.source("SEC(\"tc\") int f(struct __sk_buff *s) { return 0; }")))
        #expect(none.message == "has no XDP program (no section whose name starts with xdp)")
        let legacy = try #require(refusal(try Objects.source("""
            struct old { __u32 type, key, value, entries, flags; };
            struct old table SEC("maps") = {1, 4, 4, 1, 0};
            SEC("xdp") int f(struct xdp_md *s) { __u32 k = 0; return bpf_map_lookup_elem(&table, &k) ? 1 : 2; }
            """)))
        #expect(legacy.message.hasPrefix("declares maps in section maps, which libbpf stopped to read with version 1.0"))
    }

    /// A map with no size at all is the object's fault, and said so without asking the kernel.
    @Test func impossibleMaps() throws {
        let error = try #require(refusal(try Objects.source("""
            struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u32); } endless SEC(".maps");
            SEC("xdp") int f(struct xdp_md *s) { __u32 k = 0; return bpf_map_lookup_elem(&endless, &k) ? 1 : 2; }
            """)))
        #expect(error.message == "map endless: max_entries 0 is not within 1 to 268435456")
    }

    /// Held against libbpf: any change of ours to instructions or maps is noticed.
    @Test func mismatchIsNoticed() throws {
        let (linked, bytes) = try ProgramLoader.link(object: try Objects.program("nat"), program: nil)
        let verifier = try KernelVerifier.load([linked], bytes: bytes)
        try verifier.compare([linked])
        for (at, instruction) in linked.instructions.enumerated() where at % 7 == 0 || instruction.isLoadImmediate64 {
            for field in 0..<4 {
                var changed = linked.instructions
                switch field {
                case 0: changed[at].opcode ^= 0x08
                case 1: changed[at].source ^= 1
                case 2: changed[at].offset ^= 1
                default: changed[at].immediate ^= 1
                }
                let other = LinkedProgram(name: "nat", instructions: changed, maps: linked.maps)
                #expect(throws: LoadError.self) { try verifier.compare([other]) }
            }
        }
        let fewer = LinkedProgram(name: "nat", instructions: linked.instructions, maps: Array(linked.maps.dropLast()))
        let error = #expect(throws: LoadError.self) { try verifier.compare([fewer]) }
        #expect(error?.kind == .mismatch)
    }
}
