/// Why a packet was freed instead of sent. Each has a counter, by port.
public enum DropReason: UInt8, CaseIterable, Sendable {
    /// A virtio header whose csum_start or csum_offset points past the packet's end.
    case badChecksumPlace = 0
    /// A superframe without an unfinished TCP checksum in its first IP header, or of segment size 0.
    case badSuperframe
    /// Larger than a receive buffer.
    case tooLarge
    /// The packet pool was empty.
    case noMemory
    /// Shorter than an Ethernet header, or with one that lies in several buffers: no driver makes such packets.
    case tooShort
    /// Spread over several buffers, and the program was not written for that (section `xdp.frags`).
    case xdpNotLinear
    case xdpDrop
    case xdpAborted
    /// The program asked for a redirect, which has no target in this version.
    case xdpRedirect
    /// The port is in no wire.
    case noDestination
    /// A superframe the receiver cannot take, of a kind that software cannot cut without hiding errors.
    case cannotSegment
    /// No superframe, and larger than the leaving port's `mtu`: nothing here may cut it.
    case largerThanMTU
    /// The peer's ring was full, or there is no peer.
    case transmitFull
    /// The kernel refused the frame; most often the device is down.
    case transmitRefused
    /// Longer than the device's MTU, and no superframe.
    case tooLong
    /// A bridge sends nothing back where it came from.
    case samePort
    /// Tagged or untagged as the port does not take it, or for a VLAN in which nobody else is.
    case vlan
    /// IEEE 802.1Q, 8.6.3: addresses that no bridge passes on (01-80-C2-00-00-0X), and sources that are groups.
    case bridgeAddress

    /// As the stats socket spells it.
    public var name: String {
        switch self {
        case .badChecksumPlace: "bad_checksum_place"
        case .badSuperframe: "bad_superframe"
        case .tooLarge: "too_large"
        case .noMemory: "no_memory"
        case .tooShort: "too_short"
        case .xdpNotLinear: "xdp_not_linear"
        case .xdpDrop: "xdp_drop"
        case .xdpAborted: "xdp_aborted"
        case .xdpRedirect: "xdp_redirect"
        case .noDestination: "no_destination"
        case .cannotSegment: "cannot_segment"
        case .largerThanMTU: "larger_than_mtu"
        case .transmitFull: "transmit_full"
        case .transmitRefused: "transmit_refused"
        case .tooLong: "too_long"
        case .samePort: "same_port"
        case .vlan: "vlan"
        case .bridgeAddress: "bridge_address"
        }
    }
}
