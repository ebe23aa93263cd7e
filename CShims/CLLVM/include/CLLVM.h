#pragma once
// LLVM 19 through its C API: IR, passes, target machines, object files, and ORC's LLJIT.
#include <llvm-c/Analysis.h>
#include <llvm-c/Core.h>
#include <llvm-c/DebugInfo.h>
#include <llvm-c/Error.h>
#include <llvm-c/ExecutionEngine.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Object.h>
#include <llvm-c/Orc.h>
#include <llvm-c/OrcEE.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>

// The back ends by name: LLVM's own initialisers are made by macros, which Swift does not see.
// Return false where this libLLVM was built without it.
_Bool apus_llvm_initialize(const char *_Nonnull architecture);

// A layer whose sections are writable while they are filled and executable afterwards, never both, and which tells
// gdb what it loaded. For LLVMOrcLLJITBuilderSetObjectLinkingLayerCreator.
LLVMOrcObjectLayerRef _Nonnull apus_llvm_object_layer(void *_Nullable context, LLVMOrcExecutionSessionRef _Nonnull session,
                                                      const char *_Nonnull triple);
