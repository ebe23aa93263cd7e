/// What a program can do to a packet and what it does with the checksum field (checksum contract, sections 3 and 4),
/// found without running it. Holds for every packet, every content of the maps, and every path.
///
/// The rule as implemented:
///
/// 1. *Reads.* An instruction or helper that reads packet bytes which may be the field's (where that is: ``PacketFacts``)
///    is a read with a label of its own, unless both bytes are certainly the program's: those carry the labels of what
///    was stored. From the 64th read on they share one.
/// 2. *Values* carry labels byte by byte, through registers, stack and `bpf_csum_diff`. A byte loses them only by an
///    instruction that sets it in any run.
/// 3. *Branches* whose outcome may depend on labels, both of whose arms some state takes: whatever is set, stored or
///    called before the arms meet again carries them. A raw UDP field against zero is no such branch.
/// 4. *Looks.* A label that reaches the verdict, a map, metadata, another packet byte, an address, the choice of a map
///    or a tail call, what another helper reads, or whether such a helper is called, makes its reads looks. One that
///    reaches the field alone is closed.
/// 5. *Completion* comes before the first of these that a run meets: a look; a store, adjusting helper or tail call from
///    which a look can still be reached; a closed read from which one can, since its value may be stored back behind
///    the completion. A load that is the field only in some packets is asked at the packet at hand, and does not count
///    as first for the others. States are kept apart, instructions are not: one that completes on one way completes on
///    every way that comes along it, and is a look there, too.
/// 6. *Tail calls* go on in whatever their array holds when it is asked; the marks of the program a run begins with are
///    those of all it goes on in. An array that changes is asked again (``LoadedProgram/enter(_:at:)``). A slot nobody
///    knows counts as a look.
/// 7. *Opaque packets* come completed to programs that can write, and are completed at any read that meets their field
///    in others.
/// 8. *Callbacks* are followed as calls that may happen any number of times. What they answer decides how many: a label in
///    an answer is a look.
/// 9. Beyond `AnalysisEngine`'s limits, and for functions of the kernel that write, everything is possible: completion before
///    the first instruction.
public struct Analysis: Sendable {
    /// Bytes an instruction may write. `fromData` counts from the arrival's first byte, `fromL3` from its L3 header
    /// and is there only where the program has made sure that one is where it thinks.
    public struct Store: Equatable, Sendable {
        public let instruction: Int
        public internal(set) var fromData: ByteRange
        public internal(set) var fromL3: ByteRange?
        /// It is certainly the checksum field, and nothing else.
        public internal(set) var isField = false
        /// It certainly reaches the packet, and not the stack or a map in some runs.
        var isCertain = true
    }

    /// A helper that moves the packet's ends.
    public struct Adjustment: Equatable, Sendable {
        public let instruction: Int
        public let helper: String
        /// Bytes that growing may bring in, from the arrival's first: they count as written.
        public let grown: ByteRange
    }

    /// An instruction that reads the checksum field, or may.
    public struct FieldRead: Equatable, Sendable {
        /// Index of the program it is in, in ``programs``.
        public let program: Int
        public let instruction: Int
        /// False: closed, its value reaches nothing that differs between a seed and a finished checksum.
        public internal(set) var isLook: Bool
        /// Whose field it is; nil: one or the other, or a place that may be either's.
        public internal(set) var isUDP: Bool?
    }

    /// Where a value that derives from the field leaves the closed world.
    public struct Sink: Equatable, Sendable {
        public let program: Int
        public let instruction: Int
        public let reason: String
    }

    /// Why nothing better could be said than "writes anything, looks".
    public internal(set) var limit: String?
    /// This program, and those it reaches by tail call.
    public internal(set) var programs: [String] = []
    public internal(set) var stores: [Store] = []
    public internal(set) var adjustments: [Adjustment] = []
    public internal(set) var reads: [FieldRead] = []
    public internal(set) var sinks: [Sink] = []
    /// Branches here that depend on what is looked at.
    public internal(set) var comparisons: [Int] = []
    /// A partial packet is completed before the first of these that a run comes to; here, in this program.
    public internal(set) var completions: [Int] = []
    /// Of these, the loads that are the field in some packets only: the others' checksums stay unfinished.
    public internal(set) var conditional: [Int] = []
    /// Instructions that go on in a program nobody knows yet.
    public internal(set) var unknownTailCalls: [Int] = []
    /// A zero that derives from nothing may come to stand in the field of UDP over IPv4: the program then says "no
    /// checksum". The instructions are marked, and a run says whether it came to one. Where one instruction stores now such a
    /// zero, now what derives from a seed, only a finished checksum tells: that is a look.
    public internal(set) var mayClearField = false
    /// Accesses that need no check: by instruction.
    public internal(set) var isProvedInBounds: [Bool] = []
    /// Instructions evaluated, and states kept, for the price of it.
    public internal(set) var steps = 0
    public internal(set) var states = 0
    /// Programs reached by tail call write or adjust, too.
    var writesElsewhere = false
    /// What the interpreter does at an instruction.
    var marks: [Marks] = []

    /// No reachable store, atomic or helper that changes the packet, here or behind a tail call.
    public var isReadOnly: Bool { limit == nil && stores.isEmpty && adjustments.allSatisfy { $0.helper == "bpf_xdp_adjust_meta" } && !writesElsewhere }
    /// Some instruction asks for a finished checksum.
    var asks: Bool { marks.contains { $0.rawValue & Marks.lookBits != 0 } }
    public var canLook: Bool { limit != nil || reads.contains { $0.isLook } || !unknownTailCalls.isEmpty }
}

/// What an instruction asks of the checksum before it runs. Watched only while the packet is partial.
struct Marks: OptionSet, Sendable {
    let rawValue: UInt8

    @_noLocks
    init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Complete a known partial packet.
    static var complete: Marks { Marks(rawValue: 1) }
    /// Complete it if this load meets the field.
    static var completeIfField: Marks { Marks(rawValue: 2) }
    /// The same for an opaque packet; only in programs that cannot write, others get none.
    static var completeOpaque: Marks { Marks(rawValue: 4) }
    static var completeOpaqueIfField: Marks { Marks(rawValue: 8) }

    /// Nothing is asked: the instruction may clear the field (``Effect/cleared``), whatever the packet's checksum is.
    static var clears: Marks { Marks(rawValue: 16) }

    /// Tell a test that the instruction runs; no analysis sets it.
    static var traced: Marks { Marks(rawValue: 128) }

    static var knownBits: UInt8 { @_noLocks get { 3 } }
    static var opaqueBits: UInt8 { @_noLocks get { 12 } }
    static var lookBits: UInt8 { @_noLocks get { 15 } }
    static var clearsBit: UInt8 { @_noLocks get { 16 } }
    /// Bits of the unconditional ones.
    static var alwaysBits: UInt8 { @_noLocks get { 5 } }
}

/// What a program array holds.
enum TailCallSlots {
    case unknown
    /// By slot; a slot that is missing is empty.
    case known([UInt32: LinkedProgram])
}

extension Analysis {
    /// - Parameters:
    ///   - isVerified: the kernel vouches for it; else nothing is believed of accesses that are not proved.
    ///   - slots: the contents of the program array that is map `map` of `program`. Ask again when one changes.
    static func of(_ program: LinkedProgram, isVerified: Bool = true,
                   slots: @escaping (_ program: LinkedProgram, _ map: Int) -> TailCallSlots = { _, _ in .unknown }) -> Analysis {
        let engine = AnalysisEngine(program, isVerified: isVerified, slots: slots)
        engine.run()
        return engine.result()
    }

    /// Everything is possible.
    static func worst(_ program: LinkedProgram, _ limit: String) -> Analysis {
        var result = Analysis()
        result.limit = limit
        result.mayClearField = true
        result.programs = [program.program.name]
        result.completions = [0]
        result.isProvedInBounds = [Bool](repeating: false, count: program.instructions.count)
        result.marks = [Marks](repeating: [], count: program.instructions.count)
        if !result.marks.isEmpty { result.marks[0] = [.complete, .completeOpaque, .clears] }
        return result
    }
}
