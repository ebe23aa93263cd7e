internal import CLLVM
import EBPF

/// Why a program is not compiled.
struct NotCompilable: Error { let reason: String }

/// Translates one program: a function that runs it (`body`), internal ones for its subprograms, and one that runs a burst.
///
/// **Conventions.** Every function of every program has the same type, so that a tail call is a jump:
/// `i64 (run, tracks, r1, r2, r3, r4, r5)`. `run` is the engine's `Machine` of the burst; it stays in registers where no
/// helper is called that needs it. `tracks` (``Tracks``) is the compiled code's own and never leaves it.
@safe final class ProgramEmitter {
    let ir: IR
    let unit: CompilationUnit
    let signature: IR.Kind
    let flows: [Int: FunctionFlow]
    private(set) var functions: [Int: IR.Value] = unsafe [:]
    let planted: TranslationBug?
    let profile: CycleProfile?
    /// Places in the code that helpers may call back.
    let callbacks: [Int]
    /// Sandbox: instructions are counted.
    let isBudgeted: Bool
    let mayAdjust: Bool
    /// Where the packet lies may differ from where its context says: it stands in the `Machine`.
    private(set) var keepsPlace: Bool
    /// Whether a run has failed, and whether the `Machine` is filled in, stands there, where other programs' code finds it;
    /// otherwise with the tracks, where a run that calls no helper never asks.
    private(set) var keepsState: Bool
    // What the translation of the functions finds.
    /// Helpers are called that work on the `Machine`.
    var needsMachine: Bool
    /// What was written may stand in the `Machine`'s effect, where the engine recorded it.
    var recordsInMachine: Bool
    /// A target may stand there.
    var mayRedirect: Bool
    let hasTailCalls: Bool

    /// A function stores the context, or what may be it: others may find it in memory.
    private lazy var isContextStored = flows.count > 1 && planted != .contextInMemory
        && flows.values.contains { shapes(of: $0, isContextLost: false).storesContext }

    var run: IR.Value { unsafe ir.parameter(0, of: ir.currentFunction) }
    var tracks: IR.Value { unsafe ir.parameter(1, of: ir.currentFunction) }

    init(_ unit: CompilationUnit, _ ir: IR, planted: TranslationBug? = nil, profile: CycleProfile? = nil) {
        self.profile = profile
        self.unit = unit
        self.ir = ir
        self.planted = planted
        unsafe signature = ir.type(of: ir.i64, [ir.pointer, ir.pointer, ir.i64, ir.i64, ir.i64, ir.i64, ir.i64])
        (flows, callbacks) = ProgramEmitter.functions(unit.code)
        var operations: Set<Operation> = []
        for flow in flows.values {
            for (start, block) in flow.blocks { for at in start..<block.end { operations.insert(unit.code[at].operation) } }
        }
        hasTailCalls = operations.contains(.tailCall)
        mayAdjust = hasTailCalls || !operations.isDisjoint(with: [.adjustHead, .adjustTail, .adjustMeta])
        needsMachine = unit.isSandboxed || hasTailCalls
        keepsPlace = unit.isSandboxed || mayAdjust
        // The planted bug is to find the machine as the packet before left it.
        keepsState = needsMachine || planted == .staleMachine
        (mayRedirect, recordsInMachine) = (hasTailCalls, unit.isSandboxed || mayAdjust)
        isBudgeted = unit.isSandboxed && (flows.values.contains { $0.hasLoop } || !operations.isDisjoint(with: [.callLocal, .loop, .forEach]))
    }

    /// What a function's registers hold.
    func shapes(of flow: FunctionFlow) -> Shapes { shapes(of: flow, isContextLost: isContextStored) }

    private func shapes(of flow: FunctionFlow, isContextLost: Bool) -> Shapes {
        Shapes(unit.code, flow, isMain: flow.entry == 0 && !unit.isRaw, isContextLost: isContextLost)
    }

    /// The functions of a program by their first instruction, and which of them are called back.
    private static func functions(_ code: [DecodedInstruction]) -> ([Int: FunctionFlow], [Int]) {
        var flows: [Int: FunctionFlow] = [:], callbacks: Set<Int> = [], stack = [0]
        while let entry = stack.popLast() {
            guard flows[entry] == nil else { continue }
            let flow = FunctionFlow(code, entry: entry)
            flows[entry] = flow
            for (start, block) in flow.blocks {
                for at in start..<block.end where code[at].operation == .callLocal || code[at].operation == .functionAddress {
                    stack.append(at + 1 + Int(code[at].offset))
                    if code[at].operation == .functionAddress { callbacks.insert(at + 1 + Int(code[at].offset)) }
                }
            }
        }
        return (flows, callbacks.sorted())
    }

    // MARK: Cycles by line

    /// From here on, what is counted counts for an instruction's line; -1: for none.
    func counts(for instruction: Int) {
        guard let profile else { return }
        let header = unsafe ir.place(ir.word(profile.address)), row = unsafe ir.word(profile.address(of: instruction))
        let current = unsafe ir.load(ir.i64, ir.offset(header, 8), .run), before = unsafe ir.place(current), here = unsafe ir.place(row)
        func add(_ value: IR.Value, _ place: IR.Value, _ offset: Int) {
            unsafe ir.store(ir.add(ir.load(ir.i64, ir.offset(place, offset), .run), value), ir.offset(place, offset), .run)
        }
        unsafe add(ir.sub(counter(), ir.load(ir.i64, header, .run)), before, 0)
        unsafe add(ir.zext(ir.notEqual(current, row), ir.i64), here, 8)
        unsafe add(ir.word(1), before, 16)
        unsafe ir.store(row, ir.offset(header, 8), .run)
        unsafe ir.store(counter(), header, .run)
    }

    /// What came before is over when it is read.
    private func counter() -> IR.Value {
        #if arch(arm64)
        _ = unsafe ir.intrinsic("llvm.aarch64.isb", [], [ir.int(15)])
        return unsafe ir.intrinsic("llvm.readsteadycounter", [], [])
        #else
        _ = unsafe ir.intrinsic("llvm.x86.sse2.lfence", [], [])
        return unsafe ir.intrinsic("llvm.readcyclecounter", [], [])
        #endif
    }

    /// - Parameter isTailTarget: other programs may jump here.
    func emit(name: String, isTailTarget: Bool) throws(NotCompilable) {
        // Whoever jumps here may have moved it.
        if isTailTarget { (keepsPlace, keepsState) = (true, true) }
        for entry in flows.keys.sorted() {
            let isBody = entry == 0
            let function = unsafe ir.function(isBody ? "\(name).body" : "\(name).\(entry)", signature, isInternal: !isBody || !isTailTarget)
            unsafe functions[entry] = unsafe function
        }
        for (entry, flow) in flows.sorted(by: { $0.key < $1.key }) {
            guard let function = unsafe functions[entry] else { continue }
            try unsafe FunctionEmitter(self, flow, function).emit()
        }
        BurstEmitter(self).emit(name: name)
    }
}

/// What one run's compiled code knows besides the `Machine`: offsets into its record.
enum Tracks {
    static let context = 0              // address of the packet's XDPContext
    static let effect = 8               // address of its Effect, which began as zeros
    /// Which of the arrival's first bytes were written, as `WrittenBytes.first`: here, where it can stay in a register.
    static let written = 16
    static let watched = 24
    static let fault = 25
    static let isPrepared = 26
    static let size = 32
}
