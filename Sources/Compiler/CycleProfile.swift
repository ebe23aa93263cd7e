public import EBPF

/// Where a program's time goes, by source line: code that is compiled with one of these reads the counter of cycles
/// (the time stamp counter of x86-64, the generic timer of arm64) wherever the line changes. What that takes is left out:
/// as much as the mean of the cheapest line, which then counts for nothing. A line begins when the one before is over, so
/// that the lines take more than the program does where nothing waits.
///
/// One thread runs the code. A program that it goes on in by a tail call counts for the line of the call.
@safe public final class CycleProfile {
    public struct Line: Sendable {
        /// nil: the object does not say.
        public let source: SourceLine?
        /// How often it was come to from another line.
        public let entries: UInt64
        /// Over all runs.
        public let cycles: Double
    }

    /// The counter's last value, the row that is running, and a row each of cycles, entries and readings. Row 0 is what
    /// is not the program: what begins and ends a run, and whatever comes between two.
    private let memory: UnsafeMutablePointer<UInt64>
    private let sources: [SourceLine?]
    private let rowOf: [Int]
    private static let head = 2, columns = 3

    /// An object without line information has one line.
    public init(_ program: LoadedProgram) {
        var sources: [SourceLine?] = [nil], rows: [SourceLine: Int] = [:], rowOf: [Int] = [], current: Int?
        for instruction in 0..<program.instructions {
            if let source = program.source(of: instruction) {
                if rows[source] == nil {
                    rows[source] = sources.count
                    sources.append(source)
                }
                current = rows[source]
            } else if current == nil {
                current = sources.count
                sources.append(nil)
            }
            rowOf.append(current ?? 0)
        }
        self.sources = sources
        self.rowOf = rowOf
        let words = CycleProfile.head + CycleProfile.columns * sources.count
        unsafe memory = .allocate(capacity: words)
        unsafe memory.initialize(repeating: 0, count: words)
        unsafe memory[1] = row(0)
    }

    deinit { unsafe memory.deallocate() }

    private func row(_ number: Int) -> UInt64 { UInt64(UInt(bitPattern: unsafe memory + CycleProfile.head + CycleProfile.columns * number)) }

    /// Where code keeps the last value and the running row.
    var address: UInt64 { UInt64(UInt(bitPattern: unsafe memory)) }
    /// Where it counts for an instruction; of -1: for what is not the program.
    func address(of instruction: Int) -> UInt64 { row(rowOf.indices.contains(instruction) ? rowOf[instruction] : 0) }

    func isSameLine(_ a: Int, _ b: Int) -> Bool { address(of: a) == address(of: b) }

    /// Of all runs since it was made, in the order of the code; lines that were never come to are left out.
    public var lines: [Line] {
        struct Row { let source: SourceLine?, cycles, entries, readings: UInt64 }
        let rows = (1..<sources.count).map { number in
            let counts = unsafe memory + CycleProfile.head + CycleProfile.columns * number
            return unsafe Row(source: sources[number], cycles: counts[0], entries: counts[1], readings: counts[2])
        }
        // A line that is seldom come to says little.
        let enough = min(1000, rows.map(\.readings).max() ?? 0)
        let means = rows.filter { $0.readings > 0 && $0.readings >= enough }.map { Double($0.cycles) / Double($0.readings) }
        let reading = means.count > 1 ? means.min() ?? 0 : 0
        return rows.filter { $0.entries > 0 }.map { row in
            Line(source: row.source, entries: row.entries, cycles: max(0, Double(row.cycles) - Double(row.readings) * reading))
        }
    }
}
