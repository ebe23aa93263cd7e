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
    /// Bytes from `data` to the L3 header, on arrival: ranges count from there.
    public var l3Offset: Int
    public var ingressIndex, rxQueue: UInt32
    /// More of the packet lies behind `dataEnd`, in other segments.
    public var isMultiBuffer: Bool
    /// How much.
    public var bytesBehind: Int

    @_noLocks
    public init(data: UnsafeMutableRawPointer, dataEnd: UnsafeMutableRawPointer, dataMeta: UnsafeMutableRawPointer,
                bufferStart: UnsafeMutableRawPointer, bufferEnd: UnsafeMutableRawPointer, l3Offset: Int = 14,
                ingressIndex: UInt32 = 0, rxQueue: UInt32 = 0, isMultiBuffer: Bool = false, bytesBehind: Int = 0) {
        unsafe self.data = data
        unsafe self.dataEnd = dataEnd
        unsafe self.dataMeta = dataMeta
        unsafe self.bufferStart = bufferStart
        unsafe self.bufferEnd = bufferEnd
        self.l3Offset = l3Offset
        self.ingressIndex = ingressIndex
        self.rxQueue = rxQueue
        self.isMultiBuffer = isMultiBuffer
        self.bytesBehind = bytesBehind
    }
}
