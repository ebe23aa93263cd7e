internal import CLLVM
import EBPF

/// Translates one function. Registers are stack slots that LLVM turns into values.
@safe final class FunctionEmitter {
    let program: ProgramEmitter
    let ir: IR
    let unit: CompilationUnit
    let flow: FunctionFlow
    let shapes: Shapes
    let trackPlan: TrackPlan
    private let function: IR.Value
    private var slots: [IR.Value] = unsafe []
    private var blocks: [Int: IR.Block] = unsafe [:]
    /// First byte of this function's frame.
    private(set) var frame: IR.Value
    /// The function takes a key or a pair of addresses here for helpers that call back.
    private(set) var scratch: IR.Value

    init(_ program: ProgramEmitter, _ flow: FunctionFlow, _ function: IR.Value) {
        self.program = program
        self.flow = flow
        unsafe self.function = unsafe function
        ir = program.ir
        unit = program.unit
        shapes = program.shapes(of: flow)
        trackPlan = TrackPlan(program.unit, flow, planted: program.planted)
        unsafe frame = unsafe function
        unsafe scratch = unsafe function
    }

    func emit() throws(NotCompilable) {
        unsafe ir.position(at: ir.block("entry", in: function))
        for register in 0..<11 { unsafe slots.append(ir.alloca(ir.i64, "r\(register)")) }
        unsafe scratch = ir.alloca(32, align: 16, "scratch")
        makeFrame()
        for register in 0..<11 {
            let value = unsafe (1...5).contains(register) ? ir.parameter(register + 1, of: function)
                : register == 10 ? frameAddress(0) : ir.word(0)
            unsafe set(register, value)
        }
        for start in flow.blocks.keys.sorted() { unsafe blocks[start] = ir.block("at\(start)", in: function) }
        unsafe ir.jump(target(flow.entry))
        for (start, block) in flow.blocks.sorted(by: { $0.key < $1.key }) {
            unsafe ir.position(at: target(start))
            charge(start, block.end)
            var at = start, counted = -1
            while at < block.end, !ir.isTerminated {
                // Behind what runs other code of the program another line is running.
                if program.profile?.isSameLine(at, counted) == false { program.counts(for: at) }
                try translate(at)
                counted = [.callLocal, .loop, .forEach].contains(unit.code[at].operation) ? -1 : at
                at += unit.code[at].slots
            }
            if !ir.isTerminated, let next = block.successors.first { unsafe ir.jump(target(next)) }
        }
    }

    func target(_ at: Int) -> IR.Block {
        guard let block = unsafe blocks[at] else { preconditionFailure("a jump leads to a block") }
        return unsafe block
    }

    // MARK: Frames

    /// Verified code keeps its frame on the stack; what it did not write reads as zero. Unverified code's frames lie where
    /// the sandbox looks for them, zeroed by whoever called.
    private func makeFrame() {
        guard !unit.isSandboxed else {
            unsafe frame = ir.place(ir.add(runField(ir.i64, RunLayout.Run.frames), frameOffset(runField(ir.i64, RunLayout.Run.depth))))
            return
        }
        unsafe frame = ir.alloca(RunLayout.Run.frameBytes, align: 16, "frame")
        let used = shapes.frameBytes
        if used > 0 { unsafe ir.zero(ir.offset(frame, RunLayout.Run.frameBytes - used), bytes: used, align: 8) }
    }

    /// A place in the frame, counted from its top, as a number that LLVM can turn back into the place: also in functions
    /// it inlines, whose arguments are numbers.
    func frameAddress(_ top: Int64) -> IR.Value { unsafe ir.address(ir.offset(frame, RunLayout.Run.frameBytes + Int(top))) }

    func frameOffset(_ depth: IR.Value) -> IR.Value { unsafe ir.mul(depth, ir.word(RunLayout.Run.frameBytes)) }

    /// Sandbox: instructions of a block are paid for at its start.
    private func charge(_ start: Int, _ end: Int) {
        guard program.isBudgeted else { return }
        var count = 0, at = start
        while at < end {
            count += 1
            at += unit.code[at].slots
        }
        let left = unsafe ir.sub(runField(ir.i64, RunLayout.Run.budget), ir.word(count))
        unsafe setRunField(RunLayout.Run.budget, left)
        unsafe fault(unless: ir.compare(LLVMIntSGE, left, ir.word(0)), .budget)
    }

    // MARK: Registers

    func register(_ number: Int) -> IR.Value { unsafe ir.load(ir.i64, slots[number], align: 8, nil) }
    func register32(_ number: Int) -> IR.Value { unsafe ir.trunc(register(number), ir.i32) }
    func set(_ number: Int, _ value: IR.Value) { unsafe ir.store(value, slots[number], align: 8, nil) }

    func operand(_ i: DecodedInstruction) -> IR.Value {
        unsafe i.source == DecodedInstruction.immediateRegister ? ir.word(i.immediate) : register(Int(i.source))
    }
    func operand32(_ i: DecodedInstruction) -> IR.Value {
        unsafe i.source == DecodedInstruction.immediateRegister ? ir.constant(ir.i32, i.immediate & 0xffff_ffff) : register32(Int(i.source))
    }

    func shape(_ register: Int, at: Int) -> Shape { shapes.before[at]?.registers[register] ?? .any }
    func known(_ register: Int, at: Int) -> UInt64? { if case .constant(let value) = shape(register, at: at) { value } else { nil } }
    /// The map a register holds, where that is known while compiling.
    func map(_ register: Int, at: Int) -> MapShape? { known(register, at: at).flatMap { unit.maps[$0] } }

    // MARK: The run

    func runField(_ kind: IR.Kind, _ offset: Int) -> IR.Value { unsafe ir.load(kind, ir.offset(program.run, offset), .run) }
    func setRunField(_ offset: Int, _ value: IR.Value) { unsafe ir.store(value, ir.offset(program.run, offset), .run) }
    enum Place { case data, end, meta, arrival }

    /// An address in the packet at hand, or its arrival's first byte.
    func packetPlace(_ place: Place) -> IR.Value {
        let run = RunLayout.Run.self, context = RunLayout.Context.self
        switch place {
        case .data: return unsafe program.keepsPlace ? runField(ir.i64, run.data) : ofContext(context.data)
        case .end: return unsafe program.keepsPlace ? runField(ir.i64, run.end) : ofContext(context.end)
        case .meta: return unsafe program.keepsPlace ? runField(ir.i64, run.meta) : ofContext(context.meta)
        case .arrival: return unsafe program.keepsPlace ? runField(ir.i64, run.arrivalData) : ofContext(context.data)
        }
    }

    func ofContext(_ offset: Int) -> IR.Value { unsafe ir.load(ir.i64, ir.offset(track(ir.pointer, Tracks.context), offset), .run) }

    func track(_ kind: IR.Kind, _ offset: Int) -> IR.Value { unsafe ir.load(kind, ir.offset(program.tracks, offset), align: 1, .run) }
    func setTrack(_ offset: Int, _ value: IR.Value) { unsafe ir.store(value, ir.offset(program.tracks, offset), .run) }
    /// Something happened, which the effect names.
    func happened(_ offset: Int) { unsafe ir.store(ir.constant(ir.i8, 1), ir.offset(track(ir.pointer, Tracks.effect), offset), .run) }

    /// The run ends here with `fault`, unless the condition holds.
    func fault(unless condition: IR.Value, _ fault: Fault) {
        let bad = unsafe ir.newBlock("fault"), good = unsafe ir.newBlock("go")
        unsafe ir.branchRarely(ir.xor(condition, ir.flag(true)), bad, good)
        unsafe ir.position(at: bad)
        stop(fault)
        unsafe ir.position(at: good)
    }

    func stop(_ fault: Fault) {
        let fault = unsafe ir.constant(ir.i8, UInt64(fault.rawValue))
        unsafe program.keepsState ? setRunField(RunLayout.Run.fault, fault) : setTrack(Tracks.fault, fault)
        unsafe ir.ret(ir.word(0))
    }

    /// A callee or helper may have stopped the run.
    func checkStopped() {
        guard unit.isSandboxed else { return }
        let isRunning = unsafe ir.equal(runField(ir.i8, RunLayout.Run.fault), ir.constant(ir.i8, 0))
        let over = unsafe ir.newBlock("over"), good = unsafe ir.newBlock("go")
        unsafe ir.branchRarely(ir.xor(isRunning, ir.flag(true)), over, good)
        unsafe ir.position(at: over)
        unsafe ir.ret(ir.word(0))
        unsafe ir.position(at: good)
    }

    // MARK: Instructions

    private func translate(_ at: Int) throws(NotCompilable) {
        let i = unit.code[at]
        look(i)
        switch i.operation {
        case .loadImmediate64: unsafe set(Int(i.destination), ir.word(i.immediate))
        case .functionAddress: unsafe set(Int(i.destination), ir.word(at + 1 + Int(i.offset)))
        case .load8, .load16, .load32, .load64, .loadSigned8, .loadSigned16, .loadSigned32: load(i, at)
        case .store8, .store16, .store32, .store64: store(i, at)
        case .exit: unsafe ir.ret(register(0))
        case .invalid: stop(.instruction)
        case .jump: unsafe ir.jump(target(at + 1 + Int(i.offset)))
        case _ where i.operation.isJump: jump(i, at)
        case _ where i.operation.isArithmetic: arithmetic(i, at)
        case _ where i.operation.isAtomic: atomic(i, at)
        default: try call(i, at)
        }
    }

    /// A marked instruction wants the checksum of a partial packet finished (checksum contract, section 4).
    private func look(_ i: DecodedInstruction) {
        if i.marks & RunLayout.Run.clearsMark != 0 { happened(RunLayout.Outcome.cleared) }
        let asks = i.marks & RunLayout.Run.lookMarks
        guard unit.watchesChecksum, asks != 0, program.planted != .noLook else { return }
        let marks = unsafe ir.constant(ir.i8, UInt64(asks))
        let isWatched = unsafe ir.notEqual(ir.and(track(ir.i8, Tracks.watched), marks), ir.constant(ir.i8, 0))
        let asked = unsafe ir.newBlock("look"), finished = unsafe ir.newBlock("looked"), go = unsafe ir.newBlock("go")
        unsafe ir.branchRarely(isWatched, asked, go)
        unsafe ir.position(at: asked)
        let from = unsafe ir.add(operand(i), ir.word(Int(i.offset)))
        let size = switch i.operation {
        case .load8, .loadSigned8: 1
        case .load16, .loadSigned16: 2
        case .load32, .loadSigned32: 4
        default: 8
        }
        let answer = unsafe ir.external("apus_look", ir.i32, [(track(ir.pointer, Tracks.context), ir.pointer), (ir.zext(marks, ir.i32), ir.i32),
                                                               (from, ir.i64), (ir.word(size), ir.i64)])
        unsafe ir.branch(ir.notEqual(answer, ir.int(0)), finished, go)
        unsafe ir.position(at: finished)
        happened(RunLayout.Outcome.looked)
        unsafe setTrack(Tracks.watched, ir.constant(ir.i8, 0))
        unsafe ir.jump(go)
        unsafe ir.position(at: go)
    }

    private func jump(_ i: DecodedInstruction, _ at: Int) {
        let taken = at + 1 + Int(i.offset)
        unsafe ir.branch(condition(i), target(taken), target(at + 1))
    }

    private func condition(_ i: DecodedInstruction) -> IR.Value {
        let isWide = i.operation.rawValue <= Operation.jsle64.rawValue
        let a = unsafe isWide ? register(Int(i.destination)) : register32(Int(i.destination))
        let b = unsafe isWide ? operand(i) : operand32(i)
        switch i.operation {
        case .jeq64, .jeq32: return unsafe ir.equal(a, b)
        case .jne64, .jne32: return unsafe ir.notEqual(a, b)
        case .jgt64, .jgt32: return unsafe ir.compare(LLVMIntUGT, a, b)
        case .jge64, .jge32: return unsafe ir.compare(program.planted == .unsignedAtLeast ? LLVMIntUGT : LLVMIntUGE, a, b)
        case .jlt64, .jlt32: return unsafe ir.compare(LLVMIntULT, a, b)
        case .jle64, .jle32: return unsafe ir.compare(LLVMIntULE, a, b)
        case .jset64, .jset32: return unsafe ir.notEqual(ir.and(a, b), isWide ? ir.word(0) : ir.int(0))
        case .jsgt64, .jsgt32: return unsafe ir.compare(program.planted == .signedAbove ? LLVMIntUGT : LLVMIntSGT, a, b)
        case .jsge64, .jsge32: return unsafe ir.compare(LLVMIntSGE, a, b)
        case .jslt64, .jslt32: return unsafe ir.compare(LLVMIntSLT, a, b)
        default: return unsafe ir.compare(LLVMIntSLE, a, b)
        }
    }
}
