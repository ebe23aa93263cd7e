internal import CBPF

/// `enum xdp_action`.
public enum XDPVerdict: UInt32, Sendable {
    case aborted = 0, drop, pass, tx, redirect

    /// What a program returned; a number that means nothing is an abort, as in the kernel.
    @_noLocks
    init(returned value: UInt32) {
        switch value {
        case 1: self = .drop
        case 2: self = .pass
        case 3: self = .tx
        case 4: self = .redirect
        default: self = .aborted
        }
    }
}

/// What a program sees of a packet: its first segment, linear. Lives on the lcore's stack; a run updates `data`,
/// `dataEnd` and `dataMeta`.
@safe public struct XDPContext {
    public var data, dataEnd: UnsafeMutableRawPointer
    /// Start of the metadata in front of `data`; equal to `data` where there is none.
    public var dataMeta: UnsafeMutableRawPointer
    /// The lowest address the packet and its metadata may be moved to, and one past the highest.
    public var bufferStart, bufferEnd: UnsafeMutableRawPointer
    public var ingressIndex, rxQueue: UInt32
    /// More of the packet lies behind `dataEnd`, in other segments.
    public var isMultiBuffer: Bool
    /// How much.
    public var bytesBehind: Int
    /// Set where the packet's checksum is not finished.
    public var unfinished: UnfinishedChecksum? {
        @_noLocks didSet { watched = unfinished?.watched.rawValue ?? 0 }
    }
    /// Of `unfinished`, 0 without: what compiled code asks.
    private(set) var watched: UInt8 = 0

    @_noLocks
    public init(data: UnsafeMutableRawPointer, dataEnd: UnsafeMutableRawPointer, dataMeta: UnsafeMutableRawPointer,
                bufferStart: UnsafeMutableRawPointer, bufferEnd: UnsafeMutableRawPointer,
                ingressIndex: UInt32 = 0, rxQueue: UInt32 = 0, isMultiBuffer: Bool = false, bytesBehind: Int = 0) {
        unsafe self.data = data
        unsafe self.dataEnd = dataEnd
        unsafe self.dataMeta = dataMeta
        unsafe self.bufferStart = bufferStart
        unsafe self.bufferEnd = bufferEnd
        self.ingressIndex = ingressIndex
        self.rxQueue = rxQueue
        self.isMultiBuffer = isMultiBuffer
        self.bytesBehind = bytesBehind
        unfinished = nil
    }

    @_noLocks
    mutating func finishChecksum() {
        guard let unfinished = unfinished else { return }
        unsafe apus_complete(unfinished.complete, unfinished.argument)
        self.unfinished = nil
    }
}

/// A partial packet's checksum, and who can finish it. A program that looks at the field has it finished first
/// (checksum contract, section 4): `complete` is called at most once a run, on the lcore, before the program wrote or
/// moved anything. It computes the checksum into the bytes that `XDPContext` shows, allocates nothing and takes no lock.
@safe public struct UnfinishedChecksum {
    /// Bytes from `data` to the field.
    let field: Int
    let watched: Marks
    let complete: @convention(c) (UnsafeMutableRawPointer) -> Void
    let argument: UnsafeMutableRawPointer

    /// - Parameters:
    ///   - field: bytes from the arrival's first to the checksum field.
    ///   - isOpaque: the field belongs to no header the parser reached. Programs that can write get such packets finished.
    @_noLocks
    public init(field: Int, isOpaque: Bool, complete: @convention(c) (UnsafeMutableRawPointer) -> Void, argument: UnsafeMutableRawPointer) {
        self.field = field
        watched = Marks(rawValue: isOpaque ? Marks.opaqueBits : Marks.knownBits)
        unsafe self.complete = complete
        unsafe self.argument = argument
    }
}
