internal import CLLVM
public import EBPF
internal import Glibc
internal import Synchronization

/// Turns programs into machine code of this process: LLVM, ORC. One a process is enough; programs are compiled one at a
/// time, never on a polling core.
///
/// Sections are writable while they are filled and executable afterwards, never both.
@safe public final class Compiler: @unchecked Sendable {     // `jit` is thread-safe; `target` and `count` are used under the lock
    private let jit: LLVMOrcLLJITRef
    private let target: Target
    private let lock = Mutex(0)

    public init() throws(CompilerError) {
        target = try Target()
        let builder = unsafe LLVMOrcCreateLLJITBuilder()
        unsafe LLVMOrcLLJITBuilderSetObjectLinkingLayerCreator(builder, { unsafe apus_llvm_object_layer($0, $1!, $2!) }, nil)
        var jit: LLVMOrcLLJITRef?
        if let error = unsafe LLVMOrcCreateLLJIT(&jit, builder) { throw unsafe CompilerError(llvm: error) }
        guard let jit = unsafe jit else { throw CompilerError("no JIT") }
        unsafe self.jit = unsafe jit
        try defineEntries()
    }

    /// No code it made may be in use.
    deinit { if let error = unsafe LLVMOrcDisposeLLJIT(jit) { unsafe LLVMConsumeError(error) } }

    /// The engine's entries, as symbols at fixed addresses.
    private func defineEntries() throws(CompilerError) {
        var pairs = unsafe RunEntries.all.map { entry in
            unsafe LLVMOrcCSymbolMapPair(Name: LLVMOrcLLJITMangleAndIntern(jit, entry.name), Sym: LLVMJITEvaluatedSymbol(
                Address: entry.address, Flags: LLVMJITSymbolFlags(GenericFlags: UInt8(LLVMJITSymbolGenericFlagsExported.rawValue | LLVMJITSymbolGenericFlagsCallable.rawValue), TargetFlags: 0)))
        }
        let unit = unsafe LLVMOrcAbsoluteSymbols(&pairs, pairs.count)
        if let error = unsafe LLVMOrcJITDylibDefine(LLVMOrcLLJITGetMainJITDylib(jit), unit) {
            unsafe LLVMOrcDisposeMaterializationUnit(unit)
            throw unsafe CompilerError(llvm: error)
        }
    }

    /// Compiles a program; from then on every run of it uses the code. Takes as long as it takes: not on a polling core.
    ///
    /// - Parameter effort: nil: thorough, unless that would take seconds.
    public func compile(_ program: LoadedProgram, effort: Effort? = nil) throws(CompilerError) -> CompiledCode {
        try compile(program, planted: nil, effort: effort)
    }

    /// Compiles a program so that it says where its time goes. It is slower.
    public func compile(_ program: LoadedProgram, profile: CycleProfile) throws(CompilerError) -> CompiledCode {
        try compile(program, planted: nil, profile: profile)
    }

    /// - Parameter isTracking: false only to measure what tracking costs.
    package func compile(_ program: LoadedProgram, isTracking: Bool) throws(CompilerError) -> CompiledCode {
        try compile(program, planted: nil, isTracking: isTracking)
    }

    func compile(_ program: LoadedProgram, planted: TranslationBug?, isTracking: Bool = true, effort: Effort? = nil,
                 profile: CycleProfile? = nil) throws(CompilerError) -> CompiledCode {
        let effort = effort ?? .allowed(for: ([program] + program.companions).reduce(0) { max($0, $1.instructions) })
        var options = CompilationOptions(effort: effort, planted: planted, profile: profile)
        guard let tracker = unsafe LLVMOrcJITDylibCreateResourceTracker(LLVMOrcLLJITGetMainJITDylib(jit)) else { throw CompilerError("no resource tracker") }
        let code = unsafe CompiledCode(tracker, self, effort, profile)
        try lock.withLock { count throws(CompilerError) in
            for program in [program] + program.companions {
                count += 1
                var unit = program.compilation
                if !isTracking { unit.isReadOnly = true }
                try add(program, unit, name: "\(program.name)#\(count)", options, to: code)
                // The others' lines are not asked for.
                options.profile = nil
            }
        }
        code.use()
        return code
    }

    private func add(_ program: LoadedProgram, _ unit: CompilationUnit, name: String, _ options: CompilationOptions, to code: CompiledCode) throws(CompilerError) {
        let isTarget = program.mayBeTailCalled
        let object = try target.object(unit, name: name, isTailTarget: isTarget, options)
        let functions = object.functions()
        if let error = unsafe LLVMOrcLLJITAddObjectFileWithRT(jit, code.tracker, object.take()) { throw unsafe CompilerError(llvm: error) }
        code.parts.append(.init(program: program, entry: try address(of: name), body: isTarget ? try address(of: "\(name).body") : 0))
        code.bytes += functions.reduce(0) { $0 + Int($1.bytes) }
        for function in functions {
            if let at = try? address(of: function.name) { PerfMap.add(at, function.bytes, function.name) }
        }
    }

    private func address(of name: String) throws(CompilerError) -> UInt64 {
        var address: UInt64 = 0
        if let error = unsafe LLVMOrcLLJITLookup(jit, &address, name) { throw unsafe CompilerError(llvm: error) }
        return address
    }
}

/// Machine code of a program and of those its object's program arrays hold, removed when this goes: `retire()` first, and
/// be sure that nobody runs it any more.
@safe public final class CompiledCode: @unchecked Sendable {     // nothing changes after `Compiler.compile`
    struct Part {
        let program: LoadedProgram
        let entry, body: UInt64
    }

    fileprivate(set) var parts: [Part] = []
    /// Of machine code.
    public fileprivate(set) var bytes = 0
    /// How much LLVM was to do, for the program and for those of its program arrays.
    public let effort: Effort
    fileprivate let tracker: LLVMOrcResourceTrackerRef
    private let compiler: Compiler
    /// The code counts there.
    private let profile: CycleProfile?

    fileprivate init(_ tracker: LLVMOrcResourceTrackerRef, _ compiler: Compiler, _ effort: Effort, _ profile: CycleProfile?) {
        self.effort = effort
        self.profile = profile
        unsafe self.tracker = unsafe tracker
        self.compiler = compiler
    }

    deinit {
        if let error = unsafe LLVMOrcResourceTrackerRemove(tracker) { unsafe LLVMConsumeError(error) }
        unsafe LLVMOrcReleaseResourceTracker(tracker)
    }

    /// Where the program's burst loop is.
    var entry: UInt64 { parts.first?.entry ?? 0 }

    fileprivate func use() { for part in parts { part.program.adopt(entry: part.entry, body: part.body) } }

    /// The programs are interpreted from now on. Runs that began before may still be in the code.
    public func retire() { for part in parts { part.program.interpret() } }
}

/// `/tmp/perf-PID.map`, by which perf names what it samples in generated code. Written only where `APUS_PERF_MAP` is set:
/// the name can be guessed, and /tmp is everybody's.
enum PerfMap {
    static func add(_ address: UInt64, _ bytes: UInt64, _ name: String) {
        guard unsafe getenv("APUS_PERF_MAP") != nil else { return }
        let line = "\(String(address, radix: 16)) \(String(bytes, radix: 16)) \(name)\n"
        guard let file = unsafe fopen("/tmp/perf-\(getpid()).map", "ae") else { return }
        unsafe fputs(line, file)
        unsafe fclose(file)
    }
}
