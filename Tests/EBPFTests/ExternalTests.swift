import Foundation
import Testing

@testable import EBPF

/// What objects expect of the kernel: settings, symbols, functions. Loading holds instructions and settings against
/// libbpf's; the programs' answers are compared with the kernel's run where it can run them.
@Suite struct ExternalTests {
    private let packet = [UInt8](repeating: 0, count: 64)

    /// A configuration of our own, in a file.
    private func configuration(_ text: String) throws -> TargetKernel {
        let path = try Objects.write(Array(text.utf8))
        return TargetKernel(types: "/sys/kernel/btf/vmlinux", configurations: ["/nonexistent", path], symbols: "/proc/kallsyms")
    }

    static let settings = """
        extern int LINUX_KERNEL_VERSION __kconfig;
        extern _Bool LINUX_HAS_BPF_COOKIE __kconfig;
        extern unsigned long long CONFIG_HZ __kconfig __weak;
        extern _Bool CONFIG_BPF_SYSCALL __kconfig __weak;
        extern enum libbpf_tristate CONFIG_VETH __kconfig __weak;
        extern char CONFIG_NET __kconfig __weak;
        extern char CONFIG_DEFAULT_HOSTNAME[5] __kconfig __weak;
        extern unsigned short CONFIG_NO_SUCH_NUMBER __kconfig __weak;
        extern int LINUX_NOT_KNOWN __kconfig __weak;
        volatile __u64 answers[16];
        SEC("xdp") int settings(struct xdp_md *ctx)
        {
            answers[0] = LINUX_KERNEL_VERSION;
            answers[1] = LINUX_HAS_BPF_COOKIE;
            answers[2] = CONFIG_HZ;
            answers[3] = CONFIG_BPF_SYSCALL;
            answers[4] = CONFIG_VETH;
            answers[5] = CONFIG_NET;
            answers[6] = CONFIG_DEFAULT_HOSTNAME[1];
            answers[7] = CONFIG_NO_SUCH_NUMBER;
            answers[8] = LINUX_NOT_KNOWN;
            return CONFIG_BPF_SYSCALL ? XDP_PASS : XDP_DROP;
        }
        """

    private func answers(_ program: LoadedProgram) throws -> [UInt64] {
        _ = Bench().run(program, packet)
        let bytes = try #require(try program.map(named: ".bss")?.lookup([0, 0, 0, 0]))
        return (0..<9).map { Asm.word(bytes, $0) }
    }

    @Test func settingsOfTheRunningKernel() throws {
        let path = try Objects.source(ExternalTests.settings)
        let program = try ProgramLoader.load(object: path, program: nil, verify: .kernel)
        let values = try answers(program)
        let twin = try KernelTwin(object: path)
        #expect(twin.run(packet)?.verdict == (values[3] == 1 ? 2 : 1))
        let theirs = try #require(twin.entries(".bss").values.first)
        #expect(values == (0..<9).map { Asm.word(theirs, $0) })
        #expect(values[0] >= 5 << 16 && values[1] == 1 && values[7] == 0 && values[8] == 0)
        let settings = try #require(program.map(named: ".kconfig"))
        #expect(throws: MapError.frozen) { try settings.update([0, 0, 0, 0], [UInt8](repeating: 0, count: settings.definition.valueSize)) }
    }

    /// Where there is no configuration to read, weak settings are 0 and the kernel verifies the program with that.
    @Test func noConfiguration() throws {
        let none = TargetKernel(types: "/sys/kernel/btf/vmlinux", configurations: [], symbols: "/proc/kallsyms")
        let values = try answers(try ProgramLoader.load(object: try Objects.source(ExternalTests.settings), program: nil, verify: .kernel, kernel: none))
        #expect(values[0] >= 5 << 16 && values[1] == 1 && values[2...].allSatisfy { $0 == 0 })
        let strong = try Objects.source("""
            extern int CONFIG_HZ __kconfig;
            SEC("xdp") int f(struct xdp_md *ctx) { return CONFIG_HZ; }
            """)
        let error = #expect(throws: LoadError.self) { try ProgramLoader.load(object: strong, program: nil, verify: .kernel, kernel: none) }
        #expect(error?.message.hasPrefix("setting CONFIG_HZ: the running kernel's configuration cannot be read") == true, "\(error as Any)")
        #expect(error?.source?.line == 2)
    }

    /// Every form of a value, fitting and not.
    @Test func valuesOfSettings() throws {
        let sandboxed = try ProgramLoader.load(object: try Objects.source(ExternalTests.settings), program: nil, verify: .sandbox, kernel: try configuration("""
            # CONFIG_HZ=7
            CONFIG_HZ=0x64
            CONFIG_BPF_SYSCALL=y
            CONFIG_VETH=m
            CONFIG_NET=y
            CONFIG_DEFAULT_HOSTNAME="(none) long"
            CONFIG_NO_SUCH_NUMBER=65535
            """))
        #expect(Array(try answers(sandboxed)[2...]) == [100, 1, 2, UInt64(UInt8(ascii: "y")), UInt64(UInt8(ascii: "n")), 65535, 0])
        #expect(try sandboxed.map(named: ".kconfig")?.lookup([0, 0, 0, 0])?.suffix(8).contains(UInt8(ascii: "(")) == true)
        for (line, name) in [("CONFIG_NO_SUCH_NUMBER=65536", "CONFIG_NO_SUCH_NUMBER"), ("CONFIG_BPF_SYSCALL=m", "CONFIG_BPF_SYSCALL"),
                             ("CONFIG_HZ=\"a\"", "CONFIG_HZ"), ("CONFIG_DEFAULT_HOSTNAME=5", "CONFIG_DEFAULT_HOSTNAME"), ("CONFIG_HZ=many", "CONFIG_HZ")] {
            let kernel = try configuration(line)
            let error = #expect(throws: LoadError.self) {
                try ProgramLoader.load(object: try Objects.source(ExternalTests.settings), program: nil, verify: .sandbox, kernel: kernel)
            }
            #expect(error?.message.hasPrefix("setting \(name): the running kernel says") == true, "\(error as Any)")
        }
    }

    @Test func symbols() throws {
        let path = try Objects.source("""
            struct no_such_structure;
            extern const void bpf_prog_put __ksym __weak;
            extern const void no_such_symbol __ksym __weak;
            extern const struct no_such_structure no_such_variable __ksym __weak;
            extern int no_such_function(void) __ksym __weak;
            volatile __u64 answers[9];
            SEC("xdp") int ask(struct xdp_md *ctx)
            {
                answers[0] = (__u64)&bpf_prog_put;
                answers[1] = (__u64)&no_such_symbol;
                answers[2] = (__u64)&no_such_variable;
                answers[3] = no_such_function ? no_such_function() : 5;
                return XDP_PASS;
            }
            """)
        let values = try answers(try ProgramLoader.load(object: path, program: nil, verify: .kernel))
        #expect(values[0] == TargetKernel.running.address("bpf_prog_put") && values[0] != 0)
        #expect(Array(values[1...3]) == [0, 0, 5])
    }

    // MARK: What the device knows of a packet

    static let hints = """
        enum xdp_rss_hash_type { APUS_TEST = 0 };
        extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;
        extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash, enum xdp_rss_hash_type *type) __ksym;
        extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *protocol, __u16 *tag) __ksym __weak;
        volatile __u64 answers[9];
        SEC("xdp") int hints(struct xdp_md *ctx)
        {
            __u64 timestamp = 11;
            __u32 hash = 12;
            enum xdp_rss_hash_type type = 13;
            __be16 protocol = 14;
            __u16 tag = 15;
            answers[0] = bpf_xdp_metadata_rx_timestamp(ctx, &timestamp);
            answers[1] = bpf_xdp_metadata_rx_hash(ctx, &hash, &type);
            answers[2] = bpf_xdp_metadata_rx_vlan_tag ? bpf_xdp_metadata_rx_vlan_tag(ctx, &protocol, &tag) : 1;
            answers[3] = timestamp + hash + type + protocol + tag;
            return XDP_PASS;
        }
        """

    /// Verified for a device that is gone afterwards; here the answer is -EOPNOTSUPP, and nothing is written.
    @Test func hintsAreVerifiedForADevice() throws {
        let links = try FileManager.default.contentsOfDirectory(atPath: "/sys/class/net")
        let program = try ProgramLoader.load(object: try Objects.source(ExternalTests.hints), program: nil, verify: .kernel)
        let values = try answers(program)
        let refused = UInt64(bitPattern: -95)
        #expect(Array(values[0..<2]) == [refused, refused] && values[3] == 65)
        #expect(values[2] == (try TargetKernel.running.function("bpf_xdp_metadata_rx_vlan_tag") == nil ? 1 : refused))
        #expect(program.notes.isEmpty && program.analysis.isReadOnly && program.analysis.limit == nil)
        #expect(try FileManager.default.contentsOfDirectory(atPath: "/sys/class/net") == links)
    }

    /// A kernel that lacks two of them: the verifier is shown stubs, start-up says so, the run is the same. A weak one is
    /// just not there.
    @Test func stubsForOlderKernels() throws {
        let old = TargetKernel(types: "/sys/kernel/btf/vmlinux", configurations: nil, symbols: "/proc/kallsyms",
                               missing: ["bpf_xdp_metadata_rx_timestamp", "bpf_xdp_metadata_rx_hash", "bpf_xdp_metadata_rx_vlan_tag"])
        let path = try Objects.source(ExternalTests.hints)
        // libbpf finds the weak one in this kernel: held against its output only where there is none.
        let weakless = try Objects.source(ExternalTests.hints.replacingOccurrences(of: " __ksym __weak", with: " __ksym"))
        let program = try ProgramLoader.load(object: weakless, program: nil, verify: .kernel, kernel: old)
        let refused = UInt64(bitPattern: -95)
        #expect(Array(try answers(program)[0..<4]) == [refused, refused, refused, 65])
        #expect(program.notes.count == 3)
        #expect(program.notes.first?.contains("the running kernel has no function bpf_xdp_metadata_rx_hash: its verifier was shown a stub") == true)
        let unverified = try ProgramLoader.load(object: path, program: nil, verify: .sandbox, kernel: old)
        #expect(try answers(unverified)[2] == 1)
        // The verifier still reads what it is shown.
        let bad = try Objects.source(ExternalTests.hints.replacingOccurrences(of: " __ksym __weak", with: " __ksym")
            .replacingOccurrences(of: "return XDP_PASS", with: "return *(int *)(long)ctx->data"))
        let error = #expect(throws: LoadError.self) { try ProgramLoader.load(object: bad, program: nil, verify: .kernel, kernel: old) }
        #expect(error?.kind == .refused)
    }

    /// Through the loader process: names of functions and notes cross, too.
    @Test func throughTheLoader() throws {
        let loader = try LoaderProcess(executable: LoaderTests.executable)
        let program = try loader.load(object: try Objects.source(ExternalTests.hints), program: nil, verify: .kernel)
        #expect(try answers(program)[0] == UInt64(bitPattern: -95))
    }
}
