/// A `[bridge NAME]` section: ports between which frames go where their address was last seen.
public struct BridgeConfiguration: Sendable, Equatable {
    public var name: String
    /// At least two, in the order of the file.
    public var ports: [String]
    /// An address not heard for so long is forgotten.
    public var ageingSeconds: Int
    /// Addresses the bridge remembers, and how many of them one port may have.
    public var addressCountMax: Int
    public var portAddressCountMax: Int
    public var line: Int

    static let keys = Vocabulary(["ports", "ageing", "addresses", "port-addresses"])
    /// IEEE 802.1Q, 8.8.3: 300 seconds are recommended.
    static let ageingSecondsDefault = 300
    static let ageingSeconds = 1...1_000_000
    static let addressCountDefault = 4096
    static let addressCounts = 64...1_048_576
}

extension BridgeConfiguration {
    /// nil if what is missing has no stand-in; `ports` are what the caller found to exist.
    init?(reading reader: inout SectionReader, ports: [String]) {
        line = reader.section.line
        ageingSeconds = reader.integer("ageing", in: Self.ageingSeconds) ?? Self.ageingSecondsDefault
        addressCountMax = reader.integer("addresses", in: Self.addressCounts) ?? Self.addressCountDefault
        // One port alone can never use up the table.
        portAddressCountMax = reader.integer("port-addresses", in: 1...addressCountMax) ?? addressCountMax / 2
        self.ports = ports
        guard let name = reader.section.name else { return nil }
        self.name = name
    }
}

/// `vlan` of a port: how it takes part in its bridge's VLANs.
public enum VLANConfiguration: Sendable, Equatable {
    /// Untagged frames, of one VLAN.
    case access(Int)
    /// Tagged frames of these VLANs.
    case trunk([Int])

    /// IEEE 802.1Q, 9.6: 0 names no VLAN, 4095 is reserved.
    static let ids = 1...4094

    init?(reading reader: inout SectionReader) {
        guard let value = reader.entry("vlan")?.value else { return nil }
        let words = value.split(maxSplits: 1) { $0 == " " || $0 == "\t" }
        let ids = words.count == 2 ? try? CPUList.parse(words[1].filter { $0 != " " && $0 != "\t" }) : nil
        switch (words.first, ids) {
        case ("access", let ids?) where ids.count == 1 && Self.ids.contains(ids[0]): self = .access(ids[0])
        case ("trunk", let ids?) where ids.allSatisfy(Self.ids.contains): self = .trunk(ids.sorted())
        default:
            reader.report("vlan", "\(value.quoted) is neither 'access ID' nor 'trunk ID,ID…'", "IDs are 1 to 4094, such as 'trunk 10,20-29'")
            return nil
        }
    }
}
