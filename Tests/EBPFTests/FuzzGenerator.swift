@testable import EBPF

/// What a register holds, as the kernel's verifier will see it.
enum FuzzType: Equatable {
    case none
    /// The number, where it is known.
    case scalar(UInt64?)
    case context
    /// Bytes that are known to be there, from where it points.
    case packet(Int), metadata(Int)
    case packetEnd
    /// Offset from r10.
    case stack(Int)
    /// Bytes behind it: a caller's stack, a record of a ring buffer, a key shown to a callback.
    case lent(Int), record(Int), key(Int)
    /// Bytes left of the value.
    case value(FuzzMap, Int)
    case map(FuzzMap)
    case function

    var isScalar: Bool { if case .scalar = self { true } else { false } }

    /// Of memory: how many bytes may be touched at and behind it; nil if it is no memory.
    var room: Int? {
        switch self {
        case .packet(let n), .metadata(let n), .lent(let n), .record(let n), .key(let n): n
        case .value(_, let n): n
        case .stack(let offset): -offset
        default: nil
        }
    }

    /// What is known where two ways meet.
    func joined(_ other: FuzzType) -> FuzzType {
        if self == other { return self }
        switch (self, other) {
        case (.scalar, .scalar): return .scalar(nil)
        case (.packet(let a), .packet(let b)): return .packet(min(a, b))
        default: return .none
        }
    }
}

/// One instruction, and where it counts: the second half of a 64-bit load nowhere.
struct FuzzLine {
    var instruction: Instruction
    let cell: FuzzCell?
}

/// A function while it is written.
struct FuzzFunction {
    enum Kind { case program, called, callback }

    let kind: Kind
    var lines: [FuzzLine] = []
    /// r0 to r9.
    var types = [FuzzType](repeating: .none, count: 10)
    var spilled = FuzzType.none
    /// Registers that must stay as they are: the context, counters of loops, pointers that a loop needs again.
    var pinned: Set<UInt8> = []
    /// Inside a loop: nothing may happen that makes a pointer of before it stale.
    var loops = 0
    var fuel: Int
    /// What a call of it does to its caller: maps whose values move, and whether the packet may.
    var moves: Set<FuzzMap> = []
    var movesPacket = false
    /// How many functions lie over it and under it.
    var depth = 0
    var height = 0
    /// Where its calls go, by line: to be filled in when all functions have their place.
    var calls: [(line: Int, function: Int)] = []
    var contextRegister: UInt8?

    /// The stack: 8-byte slots of numbers, a spilled pointer, a key, a value.
    var slots: Int { kind == .program ? 6 : 3 }
    var spillOffset: Int16 { Int16(-8 * slots - 8) }
    var keyOffset: Int16 { spillOffset - 8 }
    var valueOffset: Int16 { keyOffset - 16 }
}

/// Writes programs that the kernel's verifier should take: it keeps track of what the verifier will know of each register,
/// never lets a number depend on an address, and leaves what it computed where the engines can be compared.
struct FuzzGenerator {
    var random: SplitMix
    var f = FuzzFunction(kind: .program, fuel: 0)
    /// Finished functions; the program itself is the first.
    var functions: [FuzzFunction?] = []
    /// What finished functions want in r1 to r5, by their place.
    var signatures: [Int: [FuzzType]] = [:]

    init(seed: UInt64) { random = SplitMix(seed) }

    struct Written {
        let program: FuzzProgram
        let cells: [FuzzCell]
    }

    /// One with a packet access, a map operation and a branch: nearly every try has them.
    mutating func next() -> Written {
        while true {
            let written = attempt()
            if FuzzCampaign.isRich(written.cells) { return written }
        }
    }

    private mutating func attempt() -> Written {
        functions = [nil]
        signatures = [:]
        f = FuzzFunction(kind: .program, fuel: Int.random(in: 6...16, using: &random))
        f.types[1] = .context
        prologue()
        if oneIn(3) { statement() }
        takePacket()
        if let packet = memory({ if case .packet(let n) = $0 { n >= 8 } else { false } }) { access(packet) }
        mapStatement()
        while f.fuel > 0 { statement() }
        branch()
        fold()
        leave()
        functions[0] = f
        let lines = assembled()
        return Written(program: FuzzProgram(code: lines.map(\.instruction), packets: packets()), cells: lines.compactMap(\.cell))
    }

    /// All functions in a row, calls with their distances.
    private func assembled() -> [FuzzLine] {
        var starts: [Int] = [], lines: [FuzzLine] = []
        for function in functions {
            starts.append(lines.count)
            lines += function?.lines ?? []
        }
        for (number, function) in functions.enumerated() {
            for (line, target) in function?.calls ?? [] {
                let at = starts[number] + line
                lines[at].instruction.immediate = Int32(starts[target] - at - 1)
            }
        }
        return lines
    }

    private mutating func packets() -> [[UInt8]] {
        (0..<Int.random(in: 2...4, using: &random)).map { number in
            // The first is long enough for every check; others may not be.
            let count = number == 0 ? Int.random(in: 80...160, using: &random) : pick([14, 20, 33, 40, 60, 64, 65, 96, 128, 200])
            var bytes: [UInt8] = []
            while bytes.count < count { bytes += oneIn(2) ? Asm.words([corner()]) : Asm.words([random.next()]) }
            return Array(bytes.prefix(count))
        }
    }

    // MARK: Choices

    mutating func oneIn(_ n: Int) -> Bool { Int.random(in: 0..<n, using: &random) == 0 }
    mutating func pick<T>(_ values: [T]) -> T { values[Int.random(in: 0..<values.count, using: &random)] }
    mutating func corner() -> UInt64 { pick(FuzzMap.corners) }
    mutating func immediate() -> Int32 {
        pick([0, 1, -1, 2, 7, 8, 63, 255, 0x1000, .min, .max, -2, Int32(truncatingIfNeeded: random.next())])
    }
    mutating func size() -> UInt8 { pick([Asm.byte, Asm.half, Asm.word, Asm.double]) }

    // MARK: Emission

    mutating func emit(_ instruction: Instruction) {
        f.lines.append(FuzzLine(instruction: instruction, cell: FuzzCell(instruction, f)))
    }

    /// A jump whose distance comes with `land`.
    mutating func jump(_ instruction: Instruction) -> Int {
        emit(instruction)
        return f.lines.count - 1
    }

    mutating func land(_ at: Int) {
        let distance = f.lines.count - at - 1
        if f.lines[at].instruction.opcode == 0x06 { f.lines[at].instruction.immediate = Int32(distance) }
        else { f.lines[at].instruction.offset = Int16(distance) }
    }

    mutating func set(_ register: UInt8, _ type: FuzzType) { f.types[Int(register)] = type }
    func type(_ register: UInt8) -> FuzzType { f.types[Int(register)] }

    mutating func number(_ register: UInt8, _ value: UInt64) {
        let narrow = Int32(truncatingIfNeeded: value)
        if UInt64(bitPattern: Int64(narrow)) == value && !oneIn(4) {
            emit(Asm.mov(register, imm: narrow))
        } else {
            let halves = Asm.load64(register, value)
            emit(halves[0])
            emit(halves[1])
        }
        set(register, .scalar(value))
    }

    mutating func map(_ register: UInt8, _ map: FuzzMap) {
        for half in FuzzTargets.map(register, map) { emit(half) }
        set(register, .map(map))
    }

    // MARK: Registers

    /// One to be overwritten; of those that hold nothing rather than of others.
    mutating func free(except: [UInt8] = [], from candidates: ClosedRange<UInt8> = 0...9) -> UInt8 {
        let open = candidates.filter { !f.pinned.contains($0) && !except.contains($0) }
        let empty = open.filter { type($0) == .none }
        return pick(!empty.isEmpty && !oneIn(4) ? empty : open)
    }

    /// One that holds a number; made if there is none.
    mutating func scalar(except: [UInt8] = []) -> UInt8 {
        let there = (0...9).map(UInt8.init).filter { type($0).isScalar && !except.contains($0) }
        if !there.isEmpty && !oneIn(5) { return pick(there) }
        let register = free(except: except)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: number(register, corner())
        case 1 where memory({ if case .packet(let n) = $0 { n >= 8 } else { false } }) != nil:
            let packet = memory { if case .packet(let n) = $0 { n >= 8 } else { false } } ?? 0
            emit(Asm.load(Asm.double, register, packet, Int16.random(in: 0...Int16(type(packet).room! - 8), using: &random)))
            set(register, .scalar(nil))
        default:
            emit(Asm.load(Asm.double, register, 10, slot()))
            set(register, .scalar(nil))
        }
        return register
    }

    /// One that may be overwritten by arithmetic.
    mutating func target(except: [UInt8] = []) -> UInt8 {
        let there = (0...9).map(UInt8.init).filter { type($0).isScalar && !f.pinned.contains($0) && !except.contains($0) }
        if !there.isEmpty { return pick(there) }
        let register = free(except: except)
        number(register, corner())
        return register
    }

    /// A register with memory of some kind behind it.
    mutating func memory(_ isWanted: (FuzzType) -> Bool) -> UInt8? {
        let there = (0...9).map(UInt8.init).filter { isWanted(type($0)) }
        return there.isEmpty ? nil : pick(there)
    }

    mutating func slot() -> Int16 { Int16(-8 * Int.random(in: 1...f.slots, using: &random)) }
}
