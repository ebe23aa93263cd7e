internal import CBPF

/// What programs print with `bpf_printk`: one ring of lines for the process.
public enum ProgramTrace {
    /// Takes the lines out.
    /// - Returns: them, and how many were lost since the last time.
    public static func take() -> (lines: [String], lost: UInt64) {
        var lines: [String] = [], lost: UInt64 = 0
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            var missed: UInt64 = 0
            let used = unsafe buffer.withUnsafeMutableBytes {
                unsafe apus_trace_read($0.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self), $0.count, &missed)
            }
            lost += missed
            if used == 0 { return (lines, lost) }
            lines += String(decoding: buffer.prefix(used), as: UTF8.self).split(separator: "\n").map(String.init)
        }
    }
}

extension BPFMap {
    /// Takes records out of a ring buffer, or events of every CPU out of a perf event array, as hexadecimal.
    /// - Returns: how many were lost since the map was made; nil for any other map.
    public func takeRecords(most: Int, _ each: (String) -> Void) -> UInt64? {
        var taken = 0
        switch unsafe storage.pointee.kind {
        case .ringBuffer:
            while taken < most, let record = nextRecord() {
                each(ValueText.hex(record[...]))
                taken += 1
            }
            return lostRecords
        case .events:
            var lost: UInt64 = 0
            for cpu in 0..<min(definition.maxEntries, Int(apus_possible_cpus())) {
                while taken < most, let event = nextEvent(cpu: cpu) {
                    each(ValueText.hex(event[...]))
                    taken += 1
                }
                lost += lostEvents(cpu: cpu)
            }
            return lost
        default: return nil
        }
    }

    /// Perf events need rings before programs can write any.
    public var needsRings: Bool { unsafe storage.pointee.kind == .events }
}
