import ArgumentParser
import CDPDK
import Compiler
import EBPF
import Foundation

/// How long a large program takes from the file to its first packet, and to compiled code; the kernel's share apart.
struct Start: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Times a large program from its object file to the first packet, and to compiled code.")

    @Option(help: "Instructions, at least.") var instructions = 4000
    @Option(help: "Rounds; medians are printed.") var rounds = 5

    func run() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("apus-bench-\(getpid())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        // At least so many instructions a step; then as many steps as it takes.
        var steps = instructions / 40
        var object = try compiled(steps, folder)
        while try count(object) < instructions {
            steps += max(1, steps / 10)
            object = try compiled(steps, folder)
        }
        let compiler = try Compiler()
        let frames = EngineTraffic(1..<2)
        var kernel: [Double] = [], whole: [Double] = [], first: [Double] = [], codes = [Effort: [Double]](), runs = [Effort: [Double]](), bytes = [Effort: Int]()
        for _ in 0..<rounds {
            kernel.append(try milliseconds { _ = try KernelRun(object: object) }.time)
            let (program, load) = try milliseconds { try ProgramLoader.load(object: object, program: nil, verify: .kernel) }
            whole.append(load)
            first.append(milliseconds { frames.first(program) }.time)
            for effort in Effort.allCases {
                let (compiled, time) = try milliseconds { try compiler.compile(program, effort: effort) }
                codes[effort, default: []].append(time)
                runs[effort, default: []].append(frames.time(program, passes: 100))
                bytes[effort] = compiled.bytes
                compiled.retire()
            }
        }
        func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
        func format(_ value: Double) -> String { String(format: "%.1f", value) }
        let own = median(whole) - median(kernel)
        print("a program of \(try count(object)) instructions, \(rounds) rounds, medians in milliseconds:")
        print("  read, relocated, verified by the kernel, analysed: \(format(median(whole))), of which the kernel \(format(median(kernel))), Apus \(format(own))")
        print("  first packet, interpreted: \(format(median(first))) later; \(format(own + median(first))) without the kernel (bar: 100)")
        for effort in Effort.allCases.reversed() {
            print("  compiled beside them, \(effort): \(format(median(codes[effort, default: []]))), \(bytes[effort, default: 0]) bytes, \(format(median(runs[effort, default: []]))) ns a packet")
        }
        print("  (bar: compiled code within 1000 ms for 4000 instructions; a program of more than \(Effort.thoroughMax) has the short code until the thorough one is there)")
    }

    private func milliseconds<Result>(_ body: () throws -> Result) rethrows -> (result: Result, time: Double) {
        let begin = ContinuousClock.now
        let result = try body()
        return (result, (ContinuousClock.now - begin) / .milliseconds(1))
    }

    private func count(_ object: String) throws -> Int { try Explanation.of(object: object, program: nil).first?.instructions ?? 0 }

    /// Lookups, counters, and writes that the checksum follows, one after the other, each with numbers of its own.
    private func compiled(_ steps: Int, _ folder: URL) throws -> String {
        let body = (0..<steps).map { step in
            """
                key = (ip->saddr ^ \(step &* 2_654_435_761 & 0x7fff_ffff)) & 1023;
                value = bpf_map_lookup_elem(&table, &key);
                if (value) { *value += \(step + 1); sum += (__u32)(*value >> 3) + \(step % 251); }
                if (sum & \(1 << (step % 30))) { __u32 check = (__u16)~tcp->check + (__u16)~tcp->window + \(step);
                    tcp->window = \(step); check = (check & 0xffff) + (check >> 16); tcp->check = (__u16)~(check + (check >> 16)); }
            """
        }
        let text = """
            #include <linux/bpf.h>
            #include <linux/if_ether.h>
            #include <linux/in.h>
            #include <linux/ip.h>
            #include <linux/tcp.h>
            #include <bpf/bpf_helpers.h>
            struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 1024); } table SEC(".maps");
            SEC("xdp") int large(struct xdp_md *ctx)
            {
                void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
                struct iphdr *ip = data + sizeof(struct ethhdr);
                struct tcphdr *tcp = (void *)(ip + 1);
                __u32 key, sum = 0;
                __u64 *value;
                if ((void *)(tcp + 1) > end || ip->ihl != 5 || ip->protocol != IPPROTO_TCP) return XDP_PASS;
            \(body.joined(separator: "\n"))
                return sum == 7 ? XDP_DROP : XDP_PASS;
            }
            char _license[] SEC("license") = "GPL";
            """
        let source = folder.appendingPathComponent("large.bpf.c"), object = folder.appendingPathComponent("large.o")
        try text.write(to: source, atomically: true, encoding: .utf8)
        let clang = Process()
        clang.executableURL = URL(filePath: "/usr/bin/env")
        clang.arguments = ["clang", "-target", "bpf", "-O2", "-g", "-isystem", "/usr/include/\(NativeProgram.machine)-linux-gnu", "-c", source.path, "-o", object.path]
        try clang.run()
        clang.waitUntilExit()
        guard clang.terminationStatus == 0 else { throw CocoaError(.executableLoad) }
        return object.path
    }
}
