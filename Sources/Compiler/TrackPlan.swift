import EBPF

/// How the packet stores of one function are recorded: once for all that a block makes through one register, where they
/// certainly reach the packet.
struct TrackPlan {
    /// Bytes from the register at the leading store.
    struct Group {
        private(set) var lower: Int
        /// Bit n: byte `lower` + n.
        private(set) var bits: UInt64
        /// Where they can be, from the arrival's first byte.
        private(set) var range: ByteRange
        var span: Int { WrittenBytes.window - bits.leadingZeroBitCount }

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
    /// Recorded by their group's leader.
    private(set) var followers: Set<Int> = []

    init(_ unit: CompilationUnit, _ flow: FunctionFlow) {
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
                for register in i.operation.isAtomic ? [0, Int(i.source)] : i.operation.isStore ? [] : [Int(i.destination)] { open[register] = nil }
                at += i.slots
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
