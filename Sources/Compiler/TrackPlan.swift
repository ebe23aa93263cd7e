import EBPF

/// How the packet stores of one function are recorded: once for all that a block makes through one register, where they
/// certainly reach the packet, and not again where every way there has recorded the same.
struct TrackPlan {
    /// Bytes from the register at the leading store.
    struct Group {
        private(set) var lower: Int
        /// Bit n: byte `lower` + n.
        private(set) var bits: UInt64
        /// Where they can be, from the arrival's first byte.
        private(set) var range: ByteRange
        var span: Int { WrittenBytes.window - bits.leadingZeroBitCount }
        var bytes: Set<Int> { Set((0..<span).filter { bits & 1 << UInt64($0) != 0 }.map { lower + $0 }) }

        init(_ offset: Int, _ bytes: Int, _ range: ByteRange) {
            (lower, bits, self.range) = (offset, WrittenBytes.bits(0, bytes), range)
        }

        /// - Returns: false, and nothing changed, where the bytes lie too far apart.
        mutating func add(_ offset: Int, _ bytes: Int, _ range: ByteRange) -> Bool {
            let lowest = min(lower, offset)
            guard max(lower + span, offset + bytes) - lowest <= WrittenBytes.window else { return false }
            bits = bits << UInt64(lower - lowest) | WrittenBytes.bits(offset - lowest, offset - lowest + bytes)
            lower = lowest
            self.range.include(range.lower, range.upper)
            return true
        }
    }

    /// By the instruction that records for its group.
    private(set) var leaders: [Int: Group] = [:]
    /// Recorded by their group's leader, or before.
    private(set) var followers: Set<Int> = []

    init(_ unit: CompilationUnit, _ flow: FunctionFlow, planted: TranslationBug?) {
        for (start, block) in flow.blocks {
            // By register: the leader of its open group.
            var open: [Int: Int] = [:]
            var at = start
            while at < block.end {
                let i = unit.code[at]
                if !i.operation.isLoad, i.operation.isMemory, let range = unit.stores?[at], unit.certainStores.contains(at),
                   !TrackPlan.isFixed(range, bytes: i.operation.bytes) {
                    add(at, Int(i.destination), Int(i.offset), i.operation.bytes, range, &open)
                }
                // A tail call may be the end of the run: what comes behind it is recorded behind it.
                if i.operation.isCall { open = [:] }
                for register in TrackPlan.changed(by: i) { open[register] = nil }
                at += i.slots
            }
        }
        dropRepeated(unit, flow, planted)
    }

    private static func changed(by i: DecodedInstruction) -> [Int] {
        if i.operation.isCall { return [0, 1, 2, 3, 4, 5] }
        return i.operation.isAtomic ? [0, Int(i.source)] : i.operation.isStore ? [] : [Int(i.destination)]
    }

    /// Bytes recorded, by register, from where it points.
    private typealias Recorded = [Int: Set<Int>]

    private static func both(_ a: Recorded, _ b: Recorded) -> Recorded {
        a.reduce(into: [:]) { $0[$1.key] = $1.value.intersection(b[$1.key] ?? []) }
    }

    private static func any(_ a: Recorded, _ b: Recorded) -> Recorded { a.merging(b) { $0.union($1) } }

    /// A field that is written again and again, a checksum, is recorded the first time.
    private mutating func dropRepeated(_ unit: CompilationUnit, _ flow: FunctionFlow, _ planted: TranslationBug?) {
        guard leaders.count > 1 else { return }
        let groups = leaders
        func pass(_ start: Int, _ block: FunctionFlow.Block, _ recorded: inout Recorded, repeated: (Int) -> Void = { _ in }) {
            var at = start
            while at < block.end {
                let i = unit.code[at]
                if let group = groups[at] {
                    let bytes = group.bytes, register = Int(i.destination)
                    if recorded[register]?.isSuperset(of: bytes) == true { repeated(at) }
                    recorded[register, default: []].formUnion(bytes)
                }
                for register in TrackPlan.changed(by: i) { recorded[register] = nil }
                at += i.slots
            }
        }
        // Blocks that were not come to say nothing.
        var before: [Int: Recorded] = [flow.entry: [:]], waiting = [flow.entry]
        while let start = waiting.popLast() {
            guard let block = flow.blocks[start], var recorded = before[start] else { continue }
            pass(start, block, &recorded)
            for next in block.successors {
                let common = before[next].map { planted == .repeatedWrites ? TrackPlan.any($0, recorded) : TrackPlan.both($0, recorded) } ?? recorded
                guard common != before[next] else { continue }
                before[next] = common
                waiting.append(next)
            }
        }
        for (start, block) in flow.blocks {
            guard var recorded = before[start] else { continue }
            pass(start, block, &recorded) { at in
                leaders[at] = nil
                followers.insert(at)
            }
        }
    }

    /// The place is known while compiling.
    static func isFixed(_ range: ByteRange, bytes: Int) -> Bool { Int64(range.upper) - Int64(range.lower) == Int64(bytes) }

    private mutating func add(_ at: Int, _ register: Int, _ offset: Int, _ bytes: Int, _ range: ByteRange, _ open: inout [Int: Int]) {
        if let leader = open[register], leaders[leader]?.add(offset, bytes, range) == true {
            followers.insert(at)
            return
        }
        open[register] = at
        leaders[at] = Group(offset, bytes, range)
    }
}
