#include "CLLVM.h"
#include <string.h>

_Bool apus_llvm_initialize(const char *architecture)
{
    if (strcmp(architecture, "x86_64") == 0) {
        LLVMInitializeX86TargetInfo();
        LLVMInitializeX86Target();
        LLVMInitializeX86TargetMC();
        LLVMInitializeX86AsmPrinter();
        return 1;
    }
    if (strcmp(architecture, "aarch64") == 0) {
        LLVMInitializeAArch64TargetInfo();
        LLVMInitializeAArch64Target();
        LLVMInitializeAArch64TargetMC();
        LLVMInitializeAArch64AsmPrinter();
        return 1;
    }
    return 0;
}

LLVMOrcObjectLayerRef apus_llvm_object_layer(void *context, LLVMOrcExecutionSessionRef session, const char *triple)
{
    (void)context, (void)triple;
    LLVMOrcObjectLayerRef layer = LLVMOrcCreateRTDyldObjectLinkingLayerWithSectionMemoryManager(session);
    LLVMOrcRTDyldObjectLinkingLayerRegisterJITEventListener(layer, LLVMCreateGDBRegistrationListener());
    return layer;
}
