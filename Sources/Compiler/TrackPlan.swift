import EBPF

/// How the packet stores of one function are recorded: once for all that a block makes through one register, where they
/// certainly reach the packet and on one side of any L3 header.
struct TrackPlan {
    /// Bytes from the register at the leading store, and the hull of `Tracks.fixed` they go to.
    struct Group {
        let number: Int
        var lower, upper: Int
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
                   !TrackPlan.isFixed(range, bytes: i.operation.bytes), let number = Tracks.number(range) {
                    add(at, Int(i.destination), number, Int(i.offset), Int(i.offset) + i.operation.bytes, &open)
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

    private mutating func add(_ at: Int, _ register: Int, _ number: Int, _ lower: Int, _ upper: Int, _ open: inout [Int: Int]) {
        if let leader = open[register], var group = leaders[leader], group.number == number {
            group.lower = min(group.lower, lower)
            group.upper = max(group.upper, upper)
            leaders[leader] = group
            followers.insert(at)
            return
        }
        open[register] = at
        leaders[at] = Group(number: number, lower: lower, upper: upper)
    }
}
