/// A value that does not parse; the caller knows where it stands.
struct ValueError: Error, Equatable {
    let message: String
}

/// Plain decimal digits: `Int.init` also takes a sign, which no value here has.
enum Decimal {
    static func parse(_ text: some StringProtocol) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        return Int(text)
    }
}

/// CPU numbers as the kernel writes them: `1-3,5`.
public enum CPUList {
    /// CONFIG_NR_CPUS of the largest distribution kernels.
    static let cpuMax = 8191

    static func parse(_ text: String) throws(ValueError) -> [Int] {
        var cpus: [Int] = []
        var seen: Set<Int> = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let part = part.trimming { $0 == " " || $0 == "\t" }
            let bounds = part.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).map { Decimal.parse($0) }
            guard let first = bounds[0], let last = bounds.count == 2 ? bounds[1] : first else {
                throw ValueError(message: "\(String(part).quoted) is no CPU number or range")
            }
            guard last <= cpuMax else { throw ValueError(message: "there is no CPU above \(cpuMax)") }
            guard first <= last else { throw ValueError(message: "the range \(String(part).quoted) runs backwards") }
            for cpu in first...last {
                guard seen.insert(cpu).inserted else { throw ValueError(message: "CPU \(cpu) is named twice") }
                cpus.append(cpu)
            }
        }
        return cpus
    }

    public static func text(_ cpus: some Sequence<Int>) -> String {
        var ranges: [ClosedRange<Int>] = []
        for cpu in cpus.sorted() {
            if let last = ranges.last, last.upperBound == cpu - 1 {
                ranges[ranges.count - 1] = last.lowerBound...cpu
            } else {
                ranges.append(cpu...cpu)
            }
        }
        return ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ",")
    }
}

extension Substring {
    fileprivate func trimming(_ isBlank: (Character) -> Bool) -> Substring {
        var text = drop(while: isBlank)
        while let last = text.last, isBlank(last) { text.removeLast() }
        return text
    }
}

/// Byte counts with a binary suffix: `512M`.
enum ByteSize {
    static func parse(_ text: String) -> Int? {
        let shift: Int? = switch text.utf8.last {
        case UInt8(ascii: "K"), UInt8(ascii: "k"): 10
        case UInt8(ascii: "M"), UInt8(ascii: "m"): 20
        case UInt8(ascii: "G"), UInt8(ascii: "g"): 30
        default: nil
        }
        guard let number = Decimal.parse(shift == nil ? text[...] : text.dropLast()) else { return nil }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
        return overflow ? nil : bytes
    }

    /// The shortest exact form.
    static func text(_ bytes: Int) -> String {
        for (suffix, shift) in [("G", 30), ("M", 20), ("K", 10)] where bytes != 0 && bytes % (1 << shift) == 0 {
            return "\(bytes >> shift)\(suffix)"
        }
        return "\(bytes)"
    }
}

/// Names of daemons, ports, wires and programs: they become JSON keys, file names and DPDK device names, so they hold nothing that
/// any of these would have to escape.
enum Name {
    static let bytesMax = 31

    static func isValid(_ name: String) -> Bool {
        func isAlphanumeric(_ byte: UInt8) -> Bool {
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
        }
        return name.utf8.count <= bytesMax && name.utf8.first.map(isAlphanumeric) == true
            && name.utf8.allSatisfy { isAlphanumeric($0) || [0x2D, 0x2E, 0x5F].contains($0) }
    }

    static let rule = "use 1 to \(bytesMax) of A-Z a-z 0-9 . _ -, a letter or digit first"
}
