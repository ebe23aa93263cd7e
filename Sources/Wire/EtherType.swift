/// An Ethernet frame's protocol (IEEE 802 numbers). Not to be confused with ``IPProtocol``: comparing
/// one with the other is how a TTL stops falling.
public struct EtherType: RawRepresentable, Equatable, Sendable {
    public let rawValue: UInt16

    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

    @inlinable public static var ipv4: EtherType { EtherType(rawValue: 0x0800) }
    @inlinable public static var ipv6: EtherType { EtherType(rawValue: 0x86dd) }
    /// IEEE 802.1Q customer tag.
    @inlinable public static var vlan: EtherType { EtherType(rawValue: 0x8100) }
    /// IEEE 802.1ad service tag.
    @inlinable public static var serviceVLAN: EtherType { EtherType(rawValue: 0x88a8) }

    @inlinable public var isVLAN: Bool { self == .vlan || self == .serviceVLAN }
}
