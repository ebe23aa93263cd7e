/// What an instruction does, decoded once. Forms with an immediate operand are the register forms reading register
/// `DecodedInstruction.immediateRegister`, which the interpreter fills before each instruction.
package enum Operation: UInt8, Sendable {
    /// Anything the decoder refuses, the second half of a 64-bit load, and the end of the program.
    case invalid = 0
    case add64, sub64, mul64, div64, or64, and64, lsh64, rsh64, neg64, mod64, xor64, mov64, arsh64, sdiv64, smod64
    case movsx8, movsx16, movsx32
    case add32, sub32, mul32, div32, or32, and32, lsh32, rsh32, neg32, mod32, xor32, mov32, arsh32, sdiv32, smod32
    case movsx8to32, movsx16to32
    case toLittle16, toLittle32, toLittle64, toBig16, toBig32, toBig64, swap16, swap32, swap64
    case loadImmediate64
    case load8, load16, load32, load64, loadSigned8, loadSigned16, loadSigned32
    case store8, store16, store32, store64
    case add32Atomic, or32Atomic, and32Atomic, xor32Atomic
    case fetchAdd32, fetchOr32, fetchAnd32, fetchXor32, exchange32, compareExchange32
    case add64Atomic, or64Atomic, and64Atomic, xor64Atomic
    case fetchAdd64, fetchOr64, fetchAnd64, fetchXor64, exchange64, compareExchange64
    case jump, exit, callLocal
    case jeq64, jgt64, jge64, jset64, jne64, jsgt64, jsge64, jlt64, jle64, jslt64, jsle64
    case jeq32, jgt32, jge32, jset32, jne32, jsgt32, jsge32, jlt32, jle32, jslt32, jsle32
    case mapLookup, mapUpdate, mapDelete, ktime, random, processor, csumDiff, adjustHead, adjustTail, adjustMeta, bufferLength
    /// Any other helper: `immediate` is its number, see `Helper`.
    case helper
    case tailCall, loop, forEach
    /// Loads the place of a function, for helpers that call back: `offset` counts slots from the next one.
    case functionAddress

    /// The helpers there are, by the kernel's number.
    static func helper(_ number: Int32) -> Operation? {
        switch number {
        case 1: .mapLookup
        case 2: .mapUpdate
        case 3: .mapDelete
        case 5: .ktime
        case 7: .random
        case 8: .processor
        case 12: .tailCall
        case 28: .csumDiff
        case 44: .adjustHead
        case 54: .adjustMeta
        case 65: .adjustTail
        case 164: .forEach
        case 181: .loop
        case 188: .bufferLength
        default: UInt16(exactly: number).flatMap(Helper.init) == nil ? nil : .helper
        }
    }
}

/// One slot of the program the interpreter walks. Slots correspond to the object's, so that jumps and messages count
/// the same; a 64-bit load takes two and its second is never executed.
package struct DecodedInstruction: Sendable {
    package static var immediateRegister: UInt8 { @_noLocks @inline(__always) get { 11 } }

    package var operation: Operation
    package var destination: UInt8 = 0
    package var source: UInt8 = 0
    /// ``Marks``: what it asks of the packet's checksum before it runs.
    package var marks: UInt8 = 0
    /// Of memory operands: bytes. Of jumps and local calls: slots, from the next one.
    package var offset: Int32 = 0
    package var immediate: UInt64 = 0
}

/// A 64-bit load whose value is known only when the maps exist.
struct MapReference {
    let slot: Int
    let map: Int
    /// Offset into the map's first value; nil: the map itself.
    let valueOffset: Int?
}
