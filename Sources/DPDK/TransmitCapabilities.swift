public import Wire

/// What a port's peer takes unfinished, as of now.
public struct TransmitCapabilities: Equatable, Sendable {
    /// TCP and UDP checksums of a header the driver finds.
    public var known = false
    /// "Sum from start to the end", whatever it is.
    public var opaque = false
    public var tcp4 = false
    public var tcp6 = false
    /// USO. UFO has no word here: one datagram in fragments leaves cut, whatever the peer takes.
    public var udpDatagrams = false
    /// Known checksums behind IPv6 extension headers, too: not where a driver seeds anew from the IPv6 header alone.
    public var extensions = true

    @inlinable public init(known: Bool = false, opaque: Bool = false, tcp4: Bool = false, tcp6: Bool = false,
                           udpDatagrams: Bool = false, extensions: Bool = true) {
        self.known = known
        self.opaque = opaque
        self.tcp4 = tcp4
        self.tcp6 = tcp6
        self.udpDatagrams = udpDatagrams
        self.extensions = extensions
    }

    /// Finished packets of at most the MTU.
    @inlinable public static var nothing: TransmitCapabilities { TransmitCapabilities() }
    @inlinable public static var everything: TransmitCapabilities {
        TransmitCapabilities(known: true, opaque: true, tcp4: true, tcp6: true, udpDatagrams: true)
    }

    @inlinable @_noLocks public func takesSuperframe(_ state: ChecksumState) -> Bool {
        switch state.segmentation {
        case .tcp4: known && tcp4 && state.kind == .known
        case .tcp6: known && tcp6 && state.kind == .known
        case .udpDatagrams: known && udpDatagrams && state.kind == .known
        case .udpFragment: known && udpDatagrams && state.kind == .known && Planted.breaks(.udpFragmentsAsDatagrams)
        case .none: true
        }
    }
}
