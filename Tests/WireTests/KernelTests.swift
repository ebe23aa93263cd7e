import CChecksum
import Glibc
import Testing
@testable import Wire

/// Every way to sum that this machine has, against the slow twin; and SCTP's CRC.
struct KernelTests {
    static let kernels = (0..<APUS_SUM_KERNELS.rawValue).map { apus_sum_kernel(rawValue: $0) }.filter { apus_sum_has($0) }

    private func fast(_ kernel: apus_sum_kernel, _ bytes: UnsafeRawPointer, _ count: Int) -> UInt16 {
        unsafe OnesComplementSum(raw: apus_sum_with(kernel, bytes, count)).folded.bigEndian
    }

    /// Sums of every prefix at once: the twin goes over the bytes one time an alignment.
    private func prefixSums(_ bytes: ArraySlice<UInt8>) -> [UInt16] {
        var sums: [UInt16] = [0]
        for (index, byte) in bytes.enumerated() {
            sums.append(SlowTwin.add(sums[index], index % 2 == 0 ? UInt16(byte) << 8 : UInt16(byte)))
        }
        return sums
    }

    @Test(arguments: kernels.map(\.rawValue), SumTests.patterns.indices)
    func everyAlignmentAndLength(kernel: UInt32, pattern: Int) {
        let bytes = (0..<1400).map(SumTests.patterns[pattern].1)
        let kernel = apus_sum_kernel(rawValue: kernel)
        unsafe withUnsafeTemporaryAllocation(byteCount: 1400, alignment: 64) { buffer in
            unsafe buffer.copyBytes(from: bytes)
            for alignment in Array(stride(from: 1, to: 64, by: 2)) + Array(stride(from: 0, to: 64, by: 2)) {
                let expected = prefixSums(bytes[alignment...].prefix(1300))
                for count in Array(0...300) + [511, 512, 513, 1023, 1024, 1025, 1087, 1152, 1153, 1279, 1299] {
                    let got = unsafe fast(kernel, UnsafeRawPointer(buffer.baseAddress!) + alignment, count)
                    if got != expected[count] { Issue.record("\(count) bytes at alignment \(alignment): \(got), not \(expected[count])") }
                }
            }
        }
    }

    /// The longest packets, all ones and all else: no lane overflows.
    @Test(arguments: kernels.map(\.rawValue)) func long(kernel: UInt32) {
        for (_, pattern) in SumTests.patterns {
            let bytes = (0..<65_600).map(pattern)
            for alignment in [1, 63, 33, 0, 2, 32] {
                let expected = prefixSums(bytes[alignment...].prefix(65_536))
                unsafe bytes.withUnsafeBytes { raw in
                    for count in [1459, 1460, 1461, 4095, 9000, 9001, 65_493, 65_535, 65_536] {
                        unsafe #expect(fast(apus_sum_kernel(rawValue: kernel), raw.baseAddress! + alignment, count) == expected[count])
                    }
                }
            }
        }
    }

    /// Nothing is read beyond the last byte: the page behind it would fault.
    @Test(arguments: kernels.map(\.rawValue)) func readsNothingBeyond(kernel: UInt32) {
        let page = 4096
        let memory = unsafe mmap(nil, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        defer { unsafe _ = munmap(memory, 2 * page) }
        unsafe _ = mprotect(memory + page, page, PROT_NONE)
        for count in Array(1...300) + [1023, 1087, 4095] {
            unsafe #expect(fast(apus_sum_kernel(rawValue: kernel), UnsafeRawPointer(memory) + page - count, count) == 0)
        }
    }

    @Test func theBestIsChosen() {
        let best = Self.kernels.map(\.rawValue).max()
        // Of the last two the quicker one is asked for.
        #expect(best == apus_sum_chosen().rawValue || best == APUS_SUM_VNNI.rawValue && apus_sum_chosen() == APUS_SUM_AVX512)
        print("sums: \(Self.kernels.map { unsafe String(cString: apus_sum_name($0)) }), chosen \(unsafe String(cString: apus_sum_name(apus_sum_chosen())))")
    }

    /// RFC 3720 appendix B.4, and the check value of the algorithm.
    @Test(arguments: [
        ([UInt8](repeating: 0, count: 32), 0x8a91_36aa), ([UInt8](repeating: 0xff, count: 32), 0x62a8_ab43),
        (Array(0..<32), 0x46dd_794e), (Array((0..<32).reversed()), 0x113f_db5c), (Array("123456789".utf8), 0xe306_9283),
    ] as [([UInt8], UInt32)])
    func crc(bytes: [UInt8], expected: UInt32) {
        unsafe bytes.withUnsafeBytes {
            unsafe #expect(~apus_crc32c(~0, $0.baseAddress!, $0.count) == expected)
            unsafe #expect(~apus_crc32c_table(~0, $0.baseAddress!, $0.count) == expected)
        }
    }

    /// Table and instruction agree, at every split.
    @Test func crcAtEverySplit() {
        let bytes = (0..<203).map(SumTests.patterns[3].1)
        unsafe bytes.withUnsafeBytes { raw in
            let base = raw.baseAddress!
            let whole = unsafe apus_crc32c_table(~0, base, 203)
            for split in 0...203 {
                unsafe #expect(apus_crc32c(apus_crc32c(~0, base, split), base + split, 203 - split) == whole)
            }
        }
    }
}
