internal import CLLVM

/// LLVM's instruction builder with the types and the few forms the compiler needs. Everything made here belongs to one
/// module and one context, used by one thread.
@safe final class IR {
    typealias Value = LLVMValueRef
    typealias Block = LLVMBasicBlockRef
    typealias Kind = LLVMTypeRef

    let context: LLVMContextRef
    let module: LLVMModuleRef
    private let builder: LLVMBuilderRef
    let void, i1, i8, i16, i32, i64, i128, pointer: Kind
    /// What a load or store touches: memory of one sort is never memory of the other.
    enum Region { case run, program }
    private let runTag, programTag: Value
    private let tagKind: UInt32

    init(name: String, context: LLVMContextRef) {
        unsafe self.context = unsafe context
        unsafe module = LLVMModuleCreateWithNameInContext(name, context)
        unsafe builder = LLVMCreateBuilderInContext(context)
        unsafe void = LLVMVoidTypeInContext(context)
        unsafe i1 = LLVMInt1TypeInContext(context)
        unsafe i8 = LLVMInt8TypeInContext(context)
        unsafe i16 = LLVMInt16TypeInContext(context)
        unsafe i32 = LLVMInt32TypeInContext(context)
        unsafe i64 = LLVMInt64TypeInContext(context)
        unsafe i128 = LLVMIntTypeInContext(context, 128)
        unsafe pointer = LLVMPointerTypeInContext(context, 0)
        // Type-based alias information: two types under one root.
        unsafe tagKind = LLVMGetMDKindIDInContext(context, "tbaa", 4)
        func node(_ parts: [LLVMMetadataRef?]) -> LLVMMetadataRef {
            var parts = unsafe parts
            return unsafe LLVMMDNodeInContext2(context, &parts, parts.count)
        }
        func text(_ text: String) -> LLVMMetadataRef { unsafe LLVMMDStringInContext2(context, text, text.utf8.count) }
        let zero = unsafe LLVMValueAsMetadata(LLVMConstInt(i64, 0, 0))
        let root = unsafe node([text("apus")])
        func tag(_ name: String) -> Value {
            let type = unsafe node([text(name), root, zero])
            return unsafe LLVMMetadataAsValue(context, node([type, type, zero]))
        }
        unsafe runTag = tag("run")
        unsafe programTag = tag("program")
    }

    /// The module goes on to whoever took it.
    deinit { unsafe LLVMDisposeBuilder(builder) }

    // MARK: Functions and blocks

    func type(of result: Kind, _ parameters: [Kind]) -> Kind {
        var parameters: [Kind?] = unsafe parameters
        return unsafe LLVMFunctionType(result, &parameters, UInt32(parameters.count), 0)
    }

    func function(_ name: String, _ type: Kind, isInternal: Bool) -> Value {
        let function = unsafe LLVMAddFunction(module, name, type)!
        if isInternal { unsafe LLVMSetLinkage(function, LLVMInternalLinkage) }
        unsafe attribute("nounwind", of: function)
        unsafe attribute("null_pointer_is_valid", of: function)
        return unsafe function
    }

    func attribute(_ name: String, of function: Value) {
        let kind = unsafe LLVMGetEnumAttributeKindForName(name, name.utf8.count)
        unsafe LLVMAddAttributeAtIndex(function, UInt32.max, LLVMCreateEnumAttribute(context, kind, 0))
    }

    func parameterAttribute(_ name: String, _ index: Int, of function: Value) {
        let kind = unsafe LLVMGetEnumAttributeKindForName(name, name.utf8.count)
        unsafe LLVMAddAttributeAtIndex(function, UInt32(index + 1), LLVMCreateEnumAttribute(context, kind, 0))
    }

    func parameter(_ index: Int, of function: Value) -> Value { unsafe LLVMGetParam(function, UInt32(index)) }
    func block(_ name: String, in function: Value) -> Block { unsafe LLVMAppendBasicBlockInContext(context, function, name) }
    func position(at block: Block) { unsafe LLVMPositionBuilderAtEnd(builder, block) }
    var currentBlock: Block { unsafe LLVMGetInsertBlock(builder) }
    var currentFunction: Value { unsafe LLVMGetBasicBlockParent(currentBlock) }
    var isTerminated: Bool { unsafe LLVMGetBasicBlockTerminator(currentBlock) != nil }
    func newBlock(_ name: String) -> Block { unsafe block(name, in: currentFunction) }

    // MARK: Constants

    func constant(_ kind: Kind, _ value: UInt64) -> Value { unsafe LLVMConstInt(kind, value, 0) }
    func word(_ value: UInt64) -> Value { unsafe constant(i64, value) }
    func word(_ value: Int) -> Value { unsafe constant(i64, UInt64(bitPattern: Int64(value))) }
    func int(_ value: Int32) -> Value { unsafe constant(i32, UInt64(UInt32(bitPattern: value))) }
    func flag(_ value: Bool) -> Value { unsafe constant(i1, value ? 1 : 0) }
    /// nil: not known while compiling.
    func known(_ value: Value) -> UInt64? { unsafe LLVMIsAConstantInt(value) == nil ? nil : LLVMConstIntGetZExtValue(value) }

    // MARK: Arithmetic

    func add(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildAdd(builder, a, b, "") }
    func sub(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildSub(builder, a, b, "") }
    func mul(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildMul(builder, a, b, "") }
    func udiv(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildUDiv(builder, a, b, "") }
    func urem(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildURem(builder, a, b, "") }
    func sdiv(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildSDiv(builder, a, b, "") }
    func srem(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildSRem(builder, a, b, "") }
    func and(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildAnd(builder, a, b, "") }
    func or(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildOr(builder, a, b, "") }
    func xor(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildXor(builder, a, b, "") }
    func shl(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildShl(builder, a, b, "") }
    func lshr(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildLShr(builder, a, b, "") }
    func ashr(_ a: Value, _ b: Value) -> Value { unsafe LLVMBuildAShr(builder, a, b, "") }
    func zext(_ a: Value, _ kind: Kind) -> Value { unsafe LLVMBuildZExt(builder, a, kind, "") }
    func sext(_ a: Value, _ kind: Kind) -> Value { unsafe LLVMBuildSExt(builder, a, kind, "") }
    func trunc(_ a: Value, _ kind: Kind) -> Value { unsafe LLVMBuildTrunc(builder, a, kind, "") }
    func compare(_ predicate: LLVMIntPredicate, _ a: Value, _ b: Value) -> Value { unsafe LLVMBuildICmp(builder, predicate, a, b, "") }
    func equal(_ a: Value, _ b: Value) -> Value { unsafe compare(LLVMIntEQ, a, b) }
    func notEqual(_ a: Value, _ b: Value) -> Value { unsafe compare(LLVMIntNE, a, b) }
    func below(_ a: Value, _ b: Value) -> Value { unsafe compare(LLVMIntULT, a, b) }
    func select(_ condition: Value, _ a: Value, _ b: Value) -> Value { unsafe LLVMBuildSelect(builder, condition, a, b, "") }
    func signedMin(_ a: Value, _ b: Value) -> Value { unsafe select(compare(LLVMIntSLT, a, b), a, b) }
    func signedMax(_ a: Value, _ b: Value) -> Value { unsafe select(compare(LLVMIntSGT, a, b), a, b) }

    // MARK: Memory

    func alloca(_ bytes: Int, align: UInt32, _ name: String) -> Value {
        let place = unsafe LLVMBuildAlloca(builder, LLVMArrayType2(i8, UInt64(bytes)), name)!
        unsafe LLVMSetAlignment(place, align)
        return unsafe place
    }
    func alloca(_ kind: Kind, _ name: String) -> Value { unsafe LLVMBuildAlloca(builder, kind, name) }
    func address(_ place: Value) -> Value { unsafe LLVMBuildPtrToInt(builder, place, i64, "") }
    func place(_ address: Value) -> Value { unsafe LLVMBuildIntToPtr(builder, address, pointer, "") }
    func offset(_ base: Value, _ bytes: Int) -> Value { unsafe bytes == 0 ? base : offset(base, by: word(bytes)) }
    func offset(_ base: Value, by bytes: Value) -> Value {
        var index: Value? = unsafe bytes
        return unsafe LLVMBuildGEP2(builder, i8, base, &index, 1, "")
    }

    func load(_ kind: Kind, _ place: Value, align: UInt32 = 1, _ region: Region?) -> Value {
        let value = unsafe LLVMBuildLoad2(builder, kind, place, "")!
        unsafe LLVMSetAlignment(value, align)
        unsafe mark(value, region)
        return unsafe value
    }

    func store(_ value: Value, _ place: Value, align: UInt32 = 1, _ region: Region?) {
        let store = unsafe LLVMBuildStore(builder, value, place)!
        unsafe LLVMSetAlignment(store, align)
        unsafe mark(store, region)
    }

    func loadAtomic(_ kind: Kind, _ place: Value, bytes: UInt32, _ order: LLVMAtomicOrdering) -> Value {
        let value = unsafe load(kind, place, align: bytes, .program)
        unsafe LLVMSetOrdering(value, order)
        return unsafe value
    }

    func storeAtomic(_ value: Value, _ place: Value, bytes: UInt32, _ order: LLVMAtomicOrdering) {
        let store = unsafe LLVMBuildStore(builder, value, place)!
        unsafe LLVMSetAlignment(store, bytes)
        unsafe LLVMSetOrdering(store, order)
        unsafe mark(store, .program)
    }

    private func mark(_ value: Value, _ region: Region?) {
        guard let region else { return }
        unsafe LLVMSetMetadata(value, tagKind, region == .run ? runTag : programTag)
    }

    /// - Returns: the old value.
    func atomic(_ operation: LLVMAtomicRMWBinOp, _ place: Value, _ value: Value) -> Value {
        unsafe LLVMBuildAtomicRMW(builder, operation, place, value, LLVMAtomicOrderingSequentiallyConsistent, 0)
    }

    /// - Returns: the old value.
    func compareExchange(_ place: Value, _ old: Value, _ new: Value) -> Value {
        let pair = unsafe LLVMBuildAtomicCmpXchg(builder, place, old, new, LLVMAtomicOrderingSequentiallyConsistent,
                                                 LLVMAtomicOrderingSequentiallyConsistent, 0)!
        return unsafe LLVMBuildExtractValue(builder, pair, 0, "")
    }

    func zero(_ place: Value, bytes: Int, align: UInt32) {
        unsafe _ = LLVMBuildMemSet(builder, place, constant(i8, 0), word(bytes), align)
    }

    func copy(_ to: Value, _ from: Value, bytes: Int, align: UInt32) {
        unsafe _ = LLVMBuildMemCpy(builder, to, align, from, align, word(bytes))
    }

    // MARK: Control

    func jump(_ block: Block) { unsafe _ = LLVMBuildBr(builder, block) }
    func branch(_ condition: Value, _ then: Block, _ otherwise: Block) { unsafe _ = LLVMBuildCondBr(builder, condition, then, otherwise) }
    /// A branch that is hardly ever taken.
    func branchRarely(_ condition: Value, _ rare: Block, _ otherwise: Block) {
        unsafe branch(intrinsic("llvm.expect", [i1], [condition, flag(false)]), rare, otherwise)
    }
    func ret(_ value: Value) { unsafe _ = LLVMBuildRet(builder, value) }
    func unreachable() { unsafe _ = LLVMBuildUnreachable(builder) }
    func phi(_ kind: Kind, _ incoming: [(Value, Block)]) -> Value {
        let phi = unsafe LLVMBuildPhi(builder, kind, "")!
        for unsafe (value, block) in unsafe incoming { unsafe add(phi, value, block) }
        return unsafe phi
    }
    func add(_ phi: Value, _ value: Value, _ block: Block) {
        var value: Value? = unsafe value, block: Block? = unsafe block
        unsafe LLVMAddIncoming(phi, &value, &block, 1)
    }
    func choose(_ value: Value, _ cases: [(Value, Block)], otherwise: Block) {
        let choice = unsafe LLVMBuildSwitch(builder, value, otherwise, UInt32(cases.count))
        for unsafe (value, block) in unsafe cases { unsafe LLVMAddCase(choice, value, block) }
    }

    func call(_ function: Value, _ type: Kind, _ arguments: [Value]) -> Value {
        var arguments: [Value?] = unsafe arguments
        return unsafe LLVMBuildCall2(builder, type, function, &arguments, UInt32(arguments.count), "")
    }

    func mustTail(_ call: Value) { unsafe LLVMSetTailCallKind(call, LLVMTailCallKindMustTail) }

    func intrinsic(_ name: String, _ kinds: [Kind], _ arguments: [Value]) -> Value {
        let id = unsafe LLVMLookupIntrinsicID(name, name.utf8.count)
        var overloads: [Kind?] = unsafe kinds
        let function = unsafe LLVMGetIntrinsicDeclaration(module, id, &overloads, overloads.count)!
        return unsafe call(function, LLVMIntrinsicGetType(context, id, &overloads, overloads.count), arguments)
    }

    /// A function of the engine, by its name in `RunEntries`.
    func external(_ name: String, _ result: Kind, _ arguments: [(Value, Kind)]) -> Value {
        let kind = unsafe type(of: result, arguments.map { unsafe $0.1 })
        let known = unsafe LLVMGetNamedFunction(module, name)
        let function = unsafe known ?? LLVMAddFunction(module, name, kind)!
        if unsafe known == nil { unsafe attribute("nounwind", of: function) }
        return unsafe call(function, kind, arguments.map { unsafe $0.0 })
    }

    /// What is hardly ever called: it keeps all registers but that of its result, so that nothing is saved where it is not.
    func rarelyCalled(_ name: String, _ result: Kind, _ arguments: [(Value, Kind)]) -> Value {
        let kind = unsafe type(of: result, arguments.map { unsafe $0.1 })
        let convention = UInt32(LLVMPreserveMostCallConv.rawValue)
        let known = unsafe LLVMGetNamedFunction(module, "\(name).rarely")
        let function = unsafe known ?? self.function("\(name).rarely", kind, isInternal: true)
        if unsafe known == nil {
            unsafe LLVMSetFunctionCallConv(function, convention)
            unsafe attribute("noinline", of: function)
            unsafe attribute("cold", of: function)
            let here = unsafe currentBlock
            unsafe position(at: block("entry", in: function))
            unsafe ret(external(name, result, arguments.indices.map { unsafe (parameter($0, of: function), arguments[$0].1) }))
            unsafe position(at: here)
        }
        let value = unsafe call(function, kind, arguments.map { unsafe $0.0 })
        unsafe LLVMSetInstructionCallConv(value, convention)
        return unsafe value
    }

    /// Verifies the module; nil: it is well-formed.
    func defect() -> String? {
        var message: UnsafeMutablePointer<CChar>?
        let isBroken = unsafe LLVMVerifyModule(module, LLVMReturnStatusAction, &message) != 0
        defer { unsafe LLVMDisposeMessage(message) }
        return unsafe isBroken ? message.map { unsafe String(cString: $0) } ?? "" : nil
    }

    var text: String {
        let text = unsafe LLVMPrintModuleToString(module)
        defer { unsafe LLVMDisposeMessage(text) }
        return unsafe text.map { unsafe String(cString: $0) } ?? ""
    }
}
