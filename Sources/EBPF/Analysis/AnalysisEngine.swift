/// Abstract interpretation over states kept at blocks' starts, apart by call path and by what decides where the checksum
/// field is (``PacketFacts/Key``). Subprograms are followed once per call path; programs behind tail calls belong to it.
final class AnalysisEngine {
    /// Bounds on the work; beyond them everything is possible.
    static let stepsMax = 4_000_000, statesMax = 40_000, callsMax = 8, contextsMax = 4_000, programsMax = 64
    /// Kept apart at one place; what comes more is kept apart by facts only, then by nothing.
    static let keysMax = 48, factKeysMax = 96
    /// Rounds before a place's ranges are widened.
    static let patience = 24
    /// Reads of the field that are told apart; the rest share the last label.
    static let labelsMax = 63

    struct Code {
        let linked: LinkedProgram
        let flow: ControlFlow
        var instructions: [Instruction] { linked.instructions }
    }

    struct Context {
        let program: Int
        let parent: Int?
        let callSite: Int
        let callBlock: Int
        let depth: Int
        /// Where a helper that calls back begins again; nil: an ordinary call.
        var callback: Int?
    }

    struct Place: Hashable { let context, block: Int }
    private struct NodeKey: Hashable { let place: Place; var key: AbstractState.Key }
    struct Site: Hashable { let program, instruction: Int }

    struct Event {
        /// A store, an adjusting helper or a tail call.
        var isChange = false
        var readLabels: UInt64 = 0
        /// A read that meets the field where the program has written it: it learns nothing, but what completes at this
        /// instruction on another way does so on this one, too.
        var isOwnRead = false
        /// The read meets the field in every packet that has one; else it is asked of the packet at hand.
        var isCertain = false
        var isUnknownProgram = false
    }

    struct Node {
        let place: Place
        var state: AbstractState
        var visits = 0
        var isPending = true
        var successors: Set<Int> = []
        var events: [Int: Event] = [:]      // by instruction
    }

    struct StoreRange {
        var data = ByteRange()
        var l3 = ByteRange()
        var isL3Certain = true
        var isField = true
        var isCertain = true
    }

    private(set) var codes: [Code] = []
    private(set) var contexts: [Context] = []
    private var contextIndex: [[Int]: Int] = [:]
    private(set) var nodes: [Node] = []
    private var nodeIndex: [NodeKey: Int] = [:]
    private var nodesAt: [Place: [Int]] = [:]
    private var pending: [Int] = []
    private var control: [Place: UInt64] = [:]
    private var outcomes: [Place: (arms: UInt8, labels: UInt64)] = [:]
    private let slots: (LinkedProgram, Int) -> TailCallSlots
    private var programIndex: [String: Int] = [:]

    // Where the walk is.
    private(set) var node = 0
    private(set) var context = 0
    private(set) var block = 0
    private(set) var controlLabels: UInt64 = 0
    var code: Code { codes[contexts[context].program] }
    var program: Int { contexts[context].program }

    // What it found.
    private var labelOf: [Site: Int] = [:]
    private(set) var readSites: [Site: UInt64] = [:]
    private(set) var fields: [Site: Set<Bool?>] = [:]
    private(set) var lookLabels: UInt64 = 0
    private(set) var sinks: [Site: String] = [:]
    private(set) var comparisons: [Site: UInt64] = [:]
    private(set) var stores: [Site: StoreRange] = [:]
    private(set) var adjustments: [Site: (helper: String, grown: ByteRange)] = [:]
    private(set) var unknownTailCalls: Set<Site> = []
    private(set) var packetReads: Set<Site> = []
    private(set) var accesses: Set<Site> = []
    private(set) var unproved: Set<Site> = []
    private(set) var steps = 0
    private(set) var limit: String?
    private(set) var clearing: Set<Site> = []
    private var deriving: [Site: UInt64] = [:]

    /// The kernel proved every access. Else one that is not proved here may reach whatever the sandbox allows: any frame,
    /// the packet, any map, so that a pointer kept on the stack is no pointer any more.
    let isVerified: Bool

    init(_ root: LinkedProgram, isVerified: Bool, slots: @escaping (LinkedProgram, Int) -> TailCallSlots) {
        self.slots = slots
        self.isVerified = isVerified
        codes = [Code(linked: root, flow: ControlFlow(root.instructions))]
        programIndex[AnalysisEngine.identity(root)] = 0
        contexts = [Context(program: 0, parent: nil, callSite: 0, callBlock: 0, depth: 0)]
        contextIndex[[0, -1, 0, -1]] = 0
    }

    private static func identity(_ program: LinkedProgram) -> String { program.object.name + "\u{0}" + program.program.name }

    func run() {
        guard !code.instructions.isEmpty else { return giveUp("no instructions") }
        flow(.entry(), to: 0, in: 0, from: nil)
        while limit == nil, let next = pending.popLast() {
            nodes[next].isPending = false
            walk(next)
        }
        // Which of the two a zero is, only a finished checksum can say.
        for (site, labels) in deriving where labels != 0 && clearing.contains(site) && !AnalysisBug.has(.eitherZero) {
            lookLabels |= labels
            sinks[site] = "is stored where \"no checksum\" is stored, too"
        }
    }

    func giveUp(_ reason: String) { limit = limit ?? reason }

    // MARK: Walking

    private func walk(_ number: Int) {
        node = number
        context = nodes[number].place.context
        block = nodes[number].place.block
        controlLabels = effectiveControl(nodes[number].place)
        var state = nodes[number].state
        let code = self.code
        var at = block
        while limit == nil {
            guard code.instructions.indices.contains(at) else { return }
            steps += 1
            if steps > AnalysisEngine.stepsMax { return giveUp("too many paths") }
            guard step(code.instructions[at], at, &state) else { return }
            at += code.instructions[at].isLoadImmediate64 ? 2 : 1
            guard code.instructions.indices.contains(at) else { return }
            if code.flow.isLeader[at] { return flow(state, to: at, in: context, from: number) }
        }
    }

    /// Adds a state at a block's start.
    func flow(_ state: AbstractState, to block: Int, in context: Int, from: Int?) {
        guard codes[contexts[context].program].instructions.indices.contains(block) else { return }
        let place = Place(context: context, block: block)
        var state = state
        let code = codes[contexts[context].program].flow
        for register in 0..<10 where !code.isLive(register, at: block) { state.registers[register] = .unknown }
        var key = NodeKey(place: place, key: state.key)
        if nodeIndex[key] == nil, nodesAt[place]?.count ?? 0 >= AnalysisEngine.keysMax { key.key.pointers = 0 }
        if nodeIndex[key] == nil, nodesAt[place]?.count ?? 0 >= AnalysisEngine.factKeysMax {
            state.facts = PacketFacts()
            state.headLower = -AbstractValue.far
            state.headUpper = AbstractValue.far
            key = NodeKey(place: place, key: state.key)
            key.key.pointers = 0
        }
        let index: Int
        if let known = nodeIndex[key] {
            index = known
            nodes[index].visits += 1
            let isChanged = nodes[index].state.join(state, widening: nodes[index].visits > AnalysisEngine.patience)
            if isChanged { requeue(index) }
        } else {
            guard nodes.count < AnalysisEngine.statesMax else { return giveUp("too many states") }
            index = nodes.count
            nodes.append(Node(place: place, state: state))
            nodeIndex[key] = index
            nodesAt[place, default: []].append(index)
            pending.append(index)
        }
        if let from { nodes[from].successors.insert(index) }
    }

    private func requeue(_ index: Int) {
        guard !nodes[index].isPending else { return }
        nodes[index].isPending = true
        pending.append(index)
    }

    /// The context of a call from here, or of all the calls that a helper here makes of the function at `callback`.
    func enter(callSite: Int, callback: Int? = nil) -> Int? {
        context(program, parent: context, callSite: callSite, callBlock: block, depth: contexts[context].depth + 1, callback)
    }

    /// The context at hand, or one it was called from, is a helper's call.
    var isCalledBack: Bool {
        var at: Int? = context
        while let here = at {
            if contexts[here].callback != nil { return true }
            at = contexts[here].parent
        }
        return false
    }

    /// The context of a program that takes the place of the function at hand: it returns to the same caller.
    func enterByTailCall(program: Int) -> Int? {
        let here = contexts[context]
        return context(program, parent: here.parent, callSite: here.callSite, callBlock: here.callBlock, depth: here.depth)
    }

    private func context(_ program: Int, parent: Int?, callSite: Int, callBlock: Int, depth: Int, _ callback: Int? = nil) -> Int? {
        let key = [program, parent ?? -1, callSite, callback ?? -1]
        if let known = contextIndex[key] { return known }
        guard depth < AnalysisEngine.callsMax, contexts.count < AnalysisEngine.contextsMax else {
            giveUp("calls too deep or too many")
            return nil
        }
        contexts.append(Context(program: program, parent: parent, callSite: callSite, callBlock: callBlock, depth: depth, callback: callback))
        contextIndex[key] = contexts.count - 1
        return contexts.count - 1
    }

    /// Programs a tail call through `map` may go on in; nil: nobody knows.
    func targets(map: Int, index: Scalar) -> [Int]? {
        guard case .known(let contents) = slots(code.linked, map) else { return nil }
        var found: [Int] = []
        for (slot, target) in contents.sorted(by: { $0.key < $1.key }) where index.low32.limited(UInt64(slot)...UInt64(slot)) != nil {
            let identity = AnalysisEngine.identity(target)
            if let known = programIndex[identity] { found.append(known); continue }
            guard codes.count < AnalysisEngine.programsMax else { return nil }
            codes.append(Code(linked: target, flow: ControlFlow(target.instructions)))
            programIndex[identity] = codes.count - 1
            found.append(codes.count - 1)
        }
        return found
    }

    // MARK: What depends on branches

    /// Labels of the branches that decide whether a block runs, its callers' included.
    private func effectiveControl(_ place: Place) -> UInt64 {
        var labels = control[place] ?? 0
        var context = contexts[place.context]
        while let parent = context.parent {
            labels |= control[Place(context: parent, block: context.callBlock)] ?? 0
            context = contexts[parent]
        }
        return labels
    }

    /// The state at hand takes `arms` of the branch at the end of the block, a bit each, and its outcome depends on
    /// `labels`. One arm is no choice, but only if no other state takes the other one.
    func decides(_ arms: UInt8, _ labels: UInt64, _ at: Int) {
        let place = Place(context: context, block: block)
        var outcome = outcomes[place] ?? (arms: 0, labels: 0)
        outcome.arms |= arms
        outcome.labels |= labels
        outcomes[place] = outcome
        if outcome.arms == 3, outcome.labels != 0 { branched(on: outcome.labels, at) }
    }

    /// The branch at the end of the block at hand depends on `labels`: so does whatever happens before its arms meet.
    private func branched(on labels: UInt64, _ at: Int) {
        if AnalysisBug.has(.branches) { return }
        if AnalysisBug.has(.foldsLook) { look(labels, at, "is compared") }
        comparisons[Site(program: program, instruction: at), default: 0] |= labels
        var isNew = false
        for block in code.flow.region(of: block) {
            let place = Place(context: context, block: block)
            let old = control[place] ?? 0
            if old | labels != old {
                control[place] = old | labels
                isNew = true
            }
        }
        guard isNew else { return }
        for index in nodes.indices where isInside(nodes[index].place.context, context) { requeue(index) }
    }

    private func isInside(_ inner: Int, _ outer: Int) -> Bool {
        var inner = inner
        while inner != outer {
            guard let parent = contexts[inner].parent else { return false }
            inner = parent
        }
        return true
    }

    // MARK: What was found

    /// The label of a read of the field at `at`; none where its bytes there are the program's own.
    func read(at: Int, isOwn: Bool = false, isCertain: Bool = false, isUDP: Bool? = nil) -> UInt64 {
        let site = Site(program: program, instruction: at)
        nodes[node].events[at, default: Event()].isCertain = isCertain || code.instructions[at].instructionClass != 1
        guard !isOwn else {
            nodes[node].events[at, default: Event()].isOwnRead = true
            return 0
        }
        fields[site, default: []].insert(isUDP)
        if labelOf[site] == nil { labelOf[site] = min(labelOf.count, AnalysisEngine.labelsMax) }
        let label: UInt64 = 1 << UInt64(labelOf[site] ?? AnalysisEngine.labelsMax)
        readSites[site] = label
        nodes[node].events[at, default: Event()].readLabels |= label
        return label
    }

    /// `labels` leave the closed world at `at`.
    func look(_ labels: UInt64, _ at: Int, _ reason: String) {
        guard labels != 0 else { return }
        lookLabels |= labels
        sinks[Site(program: program, instruction: at)] = reason
    }

    func changes(_ at: Int) { nodes[node].events[at, default: Event()].isChange = true }

    func stored(_ at: Int, lower: Int64, upper: Int64, l3: Int64?, isField: Bool = false, isCertain: Bool = false) {
        func clamped(_ value: Int64) -> Int32 { Int32(clamping: value) }
        var range = stores[Site(program: program, instruction: at)] ?? StoreRange()
        range.data.include(clamped(lower), clamped(upper))
        if let l3 { range.l3.include(clamped(lower - l3), clamped(upper - l3)) } else { range.isL3Certain = false }
        range.isField = range.isField && isField
        range.isCertain = range.isCertain && isCertain
        stores[Site(program: program, instruction: at)] = range
        changes(at)
    }

    func adjusted(_ at: Int, _ helper: String, grown lower: Int64 = 0, _ upper: Int64 = 0) {
        let site = Site(program: program, instruction: at)
        var grown = adjustments[site]?.grown ?? ByteRange()
        if lower < upper { grown.include(Int32(clamping: lower), Int32(clamping: upper)) }
        adjustments[site] = (helper, grown)
        changes(at)
    }

    func unknownProgram(_ at: Int) {
        unknownTailCalls.insert(Site(program: program, instruction: at))
        nodes[node].events[at, default: Event()].isUnknownProgram = true
        changes(at)
    }

    /// A zero that is stored here says "no checksum".
    func clears(_ at: Int) { clearing.insert(Site(program: program, instruction: at)) }

    /// A zero that is stored here may be chance.
    func derives(_ labels: UInt64, _ at: Int) { deriving[Site(program: program, instruction: at), default: 0] |= labels }

    func readsPacket(_ at: Int) { packetReads.insert(Site(program: program, instruction: at)) }

    func accessed(_ at: Int, isProved: Bool) {
        accesses.insert(Site(program: program, instruction: at))
        if !isProved { unproved.insert(Site(program: program, instruction: at)) }
    }
}
