internal import CLLVM
import EBPF

/// The machine that code is made for.
@safe final class Target {
    /// LLVM's word for the host's architecture.
    static var hostArchitecture: String {
        #if arch(arm64)
        "aarch64"
        #else
        "x86_64"
        #endif
    }

    let triple: String
    let machine: LLVMTargetMachineRef

    /// - Parameter architecture: `x86_64` or `aarch64`; the host's own gets every instruction the host has.
    init(_ architecture: String = Target.hostArchitecture) throws(CompilerError) {
        guard unsafe apus_llvm_initialize(architecture) else { throw CompilerError("libLLVM has no back end for \(architecture)") }
        let isHost = architecture == Target.hostArchitecture
        triple = "\(architecture)-unknown-linux-gnu"
        let cpu = unsafe isHost ? Target.text(LLVMGetHostCPUName()) : "generic"
        let features = unsafe isHost ? Target.text(LLVMGetHostCPUFeatures()) : ""
        var target: LLVMTargetRef?, message: UnsafeMutablePointer<CChar>?
        guard unsafe LLVMGetTargetFromTriple(triple, &target, &message) == 0, let target = unsafe target else {
            throw unsafe CompilerError(Target.text(message))
        }
        guard let machine = unsafe LLVMCreateTargetMachine(target, triple, cpu, features, LLVMCodeGenLevelDefault, LLVMRelocPIC, LLVMCodeModelSmall) else {
            throw CompilerError("no target machine for \(triple)")
        }
        unsafe self.machine = unsafe machine
    }

    deinit { unsafe LLVMDisposeTargetMachine(machine) }

    private static func text(_ message: UnsafeMutablePointer<CChar>?) -> String {
        defer { unsafe LLVMDisposeMessage(message) }
        return unsafe message.map { unsafe String(cString: $0) } ?? ""
    }

    /// An object file with the program's functions.
    func object(_ unit: CompilationUnit, name: String, isTailTarget: Bool, _ options: CompilationOptions = CompilationOptions()) throws(CompilerError) -> ObjectCode {
        guard let context = unsafe LLVMContextCreate() else { throw CompilerError("out of memory") }
        defer { unsafe LLVMContextDispose(context) }
        let ir = unsafe IR(name: name, context: context)
        defer { unsafe LLVMDisposeModule(ir.module) }
        unsafe LLVMSetTarget(ir.module, triple)
        let layout = unsafe LLVMCreateTargetDataLayout(machine)
        unsafe LLVMSetModuleDataLayout(ir.module, layout)
        unsafe LLVMDisposeTargetData(layout)
        do throws(NotCompilable) {
            try ProgramEmitter(unit, ir, planted: options.planted, profile: options.profile).emit(name: name, isTailTarget: isTailTarget)
        } catch {
            throw CompilerError("\(unit.name): \(error.reason)")
        }
        if let defect = ir.defect() { throw CompilerError("\(unit.name): \(defect)") }
        try optimise(ir, options.effort)
        var buffer: LLVMMemoryBufferRef?, message: UnsafeMutablePointer<CChar>?
        guard unsafe LLVMTargetMachineEmitToMemoryBuffer(machine, ir.module, LLVMObjectFile, &message, &buffer) == 0, let buffer = unsafe buffer else {
            throw unsafe CompilerError(Target.text(message))
        }
        return unsafe ObjectCode(buffer)
    }

    private func optimise(_ ir: IR, _ effort: Effort) throws(CompilerError) {
        let options = unsafe LLVMCreatePassBuilderOptions()
        defer { unsafe LLVMDisposePassBuilderOptions(options) }
        if let error = unsafe LLVMRunPasses(ir.module, effort.passes, machine, options) { throw unsafe CompilerError(llvm: error) }
    }
}

/// How a program is to be compiled.
struct CompilationOptions {
    var effort = Effort.thorough
    var planted: TranslationBug?
    /// Whose rows the code is to count in.
    var profile: CycleProfile?
}

/// How much LLVM is to do: `short` takes a third of the time, and its code a quarter more.
public enum Effort: CaseIterable, Sendable {
    case thorough, short

    /// Instructions of the largest program that is compiled thoroughly at once.
    public static let thoroughMax = 2000

    /// Of a program of so many instructions: thorough, unless that would take seconds.
    static func allowed(for instructions: Int) -> Effort { instructions > thoroughMax ? .short : .thorough }

    /// A long function gains most from these, each once: BPF's registers become values, repeated loads and dead stores go,
    /// constants and ranges decide branches. Value numbering and threaded jumps cost more than all of it, and make values
    /// that live so long that the register allocator takes as long again.
    var passes: String {
        switch self {
        case .thorough: "default<O2>"
        case .short:
            "function(sroa,early-cse<memssa>,simplifycfg),cgscc(inline),globaldce,function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,"
                + "correlated-propagation,simplifycfg,loop-mssa(licm),sccp,early-cse<memssa>,bdce,dse,adce,simplifycfg)"
        }
    }
}

/// An object file in memory.
@safe final class ObjectCode {
    private var buffer: LLVMMemoryBufferRef?

    init(_ buffer: LLVMMemoryBufferRef) { unsafe self.buffer = unsafe buffer }

    deinit { if let buffer = unsafe buffer { unsafe LLVMDisposeMemoryBuffer(buffer) } }

    /// Gives it away.
    func take() -> LLVMMemoryBufferRef? {
        defer { unsafe buffer = nil }
        return unsafe buffer
    }

    var bytes: [UInt8] {
        guard let buffer = unsafe buffer else { return [] }
        return unsafe Array(UnsafeRawBufferPointer(start: LLVMGetBufferStart(buffer), count: LLVMGetBufferSize(buffer)))
    }

    /// Functions with their sizes in bytes.
    func functions() -> [(name: String, bytes: UInt64)] {
        guard let buffer = unsafe buffer, let binary = unsafe LLVMCreateBinary(buffer, nil, nil) else { return [] }
        defer { unsafe LLVMDisposeBinary(binary) }
        guard let symbols = unsafe LLVMObjectFileCopySymbolIterator(binary) else { return [] }
        defer { unsafe LLVMDisposeSymbolIterator(symbols) }
        var found: [(name: String, bytes: UInt64)] = []
        while unsafe LLVMObjectFileIsSymbolIteratorAtEnd(binary, symbols) == 0 {
            let size = unsafe LLVMGetSymbolSize(symbols)
            if size > 0, let name = unsafe LLVMGetSymbolName(symbols) { unsafe found.append((String(cString: name), size)) }
            unsafe LLVMMoveToNextSymbol(symbols)
        }
        return found
    }
}

/// What LLVM or the translation said.
public struct CompilerError: Error, CustomStringConvertible, Sendable {
    public let description: String

    init(_ description: String) { self.description = description }

    init(llvm error: LLVMErrorRef) {
        let message = unsafe LLVMGetErrorMessage(error)
        description = unsafe message.map { unsafe String(cString: $0) } ?? "LLVM failed"
        unsafe LLVMDisposeErrorMessage(message)
    }
}
