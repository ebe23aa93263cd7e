import CBench
import CChecksum
import Glibc
import Wire

/// The summing kernels against memcpy of the same bytes and against the compiler's own loop at -march=native.
///
/// Pairs are interleaved, so that a neighbour's load or a clock change meets both sides; medians of the ratios.
@safe struct Sums {
    private enum Way { case copy, compiler, used, kernel(apus_sum_kernel) }

    private static let rounds = 301
    private static let lengths = [1, 2, 4, 8, 16, 24, 31, 32, 64, 100, 128, 192, 256, 576, 1460, 4000, 9000, 16_000, 64_000]
    /// Where a TCP payload begins in a buffer of DPDK's: 128 bytes of headroom, 54 of headers.
    private static let place = 128 + 54
    /// Not at the same place of its page, which would make memcpy wait for its own stores.
    private static let targetPlace = place + 2048

    private let source: UnsafeMutableRawPointer
    private let target: UnsafeMutableRawPointer

    init() {
        unsafe source = .allocate(byteCount: 65_536 + 4096, alignment: 64)
        unsafe target = .allocate(byteCount: 65_536 + 4096, alignment: 64)
        for index in 0..<65_536 + 4096 {
            unsafe source.storeBytes(of: UInt8(truncatingIfNeeded: index &* 37), toByteOffset: index, as: UInt8.self)
            unsafe target.storeBytes(of: 0, toByteOffset: index, as: UInt8.self)
        }
    }

    /// Prints a table: bytes a nanosecond of the chosen kernel, and each kernel's time over memcpy's and over the
    /// compiler's loop's.
    func run() {
        let kernels = (0..<APUS_SUM_KERNELS.rawValue).map { apus_sum_kernel(rawValue: $0) }.filter { apus_sum_has($0) }
        print("bytes   kernel     bytes/ns   time / memcpy   time / compiler's loop")
        for length in Self.lengths {
            for kernel in kernels {
                let isChosen = kernel.rawValue == apus_sum_chosen().rawValue
                report(unsafe String(cString: apus_sum_name(kernel)) + (isChosen ? " *" : ""), .kernel(kernel), length)
            }
            report("as used", .used, length)
        }
        print("* chosen on this machine; medians of \(Self.rounds) interleaved pairs, payload at its usual place in a buffer")
    }

    private func report(_ name: String, _ way: Way, _ length: Int) {
        let (copyRatio, nanoseconds) = compare(way, .copy, length)
        let (loopRatio, _) = compare(way, .compiler, length)
        let speed = fixed(Double(length) / nanoseconds)
        print(pad(String(length), 8) + pad(name, 11) + pad(speed, 11) + pad(fixed(copyRatio), 16) + fixed(loopRatio))
    }

    /// The median of `a`'s time over `b`'s, and the median nanoseconds of one `a`.
    private func compare(_ a: Way, _ b: Way, _ length: Int) -> (ratio: Double, nanoseconds: Double) {
        let count = max(8, 40_000 / (length + 64))
        var ratios: [Double] = [], times: [Double] = []
        for round in 0..<Self.rounds {
            let first = measure(round % 2 == 0 ? a : b, length, count), second = measure(round % 2 == 0 ? b : a, length, count)
            let (ours, theirs) = round % 2 == 0 ? (first, second) : (second, first)
            ratios.append(ours / theirs)
            times.append(ours / Double(count))
        }
        return (ratios.sorted()[Self.rounds / 2], times.sorted()[Self.rounds / 2])
    }

    @inline(never)
    private func measure(_ way: Way, _ length: Int, _ count: Int) -> Double {
        let from = unsafe source + Self.place, to = unsafe target + Self.targetPlace
        var sum: UInt64 = 0
        let begin = now()
        switch way {
        case .copy: for _ in 0..<count { unsafe apus_bench_copy(to, from, length) }
        case .compiler: for _ in 0..<count { sum &+= unsafe apus_bench_compiler_sum(from, length) }
        case .used: for _ in 0..<count { sum &+= unsafe OnesComplementSum.of(from, count: length).raw }
        case .kernel(let kernel): for _ in 0..<count { sum &+= unsafe apus_sum_with(kernel, from, length) }
        }
        let end = now()
        unsafe target.storeBytes(of: sum, as: UInt64.self)
        return end - begin
    }

    private func now() -> Double {
        var time = timespec()
        unsafe _ = clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) * 1e9 + Double(time.tv_nsec)
    }

    private func fixed(_ value: Double) -> String {
        let hundredths = Int((value * 100).rounded())
        return "\(hundredths / 100)." + (hundredths % 100 < 10 ? "0" : "") + "\(hundredths % 100)"
    }

    private func pad(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(1, width - text.utf8.count)) }
}
