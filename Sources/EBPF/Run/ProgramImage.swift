/// What a running program needs of its `LoadedProgram`: trivial, at an address that program arrays hold.
@safe struct ProgramImage {
    let code: UnsafePointer<DecodedInstruction>
    let codeCount: Int
    /// Sandbox only: what the program may touch besides packet and stack. All maps of the object, inner ones included.
    let maps: UnsafePointer<UnsafeMutablePointer<MapStorage>>
    let mapCount: Int
    let isSandboxed: Bool
    /// Two words: compiled code for a burst, and for tail calls; 0 while there is none. Control: rw, lcores: ro.
    let compiled: UnsafeMutablePointer<UInt64>
}

/// Why a run ended before its program did.
public enum Fault: UInt8, Sendable {
    case none
    /// Memory the program may not touch, or an argument a helper cannot take.
    case access
    /// More instructions than any program may execute.
    case budget
    /// Calls nested too deep.
    case depth
    /// An instruction that is none.
    case instruction
}
