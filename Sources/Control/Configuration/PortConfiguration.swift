/// A `[port NAME]` section.
public struct PortConfiguration: Sendable, Equatable {
    public enum Driver: Sendable, Equatable {
        /// `netns` is a name as `ip netns` knows it: the device is moved there.
        case tap(interface: String, netns: String?, isPersistent: Bool = false, offloads: Offloads = .on)
        case vhostUser(path: String, role: VhostRole)
        /// The other end of a vhost-user socket.
        case virtioUser(path: String, role: VhostRole, ring: Ring, isMergeable: Bool)
        /// A kernel device in the daemon's namespace.
        case afXDP(interface: String)
        /// Domain, bus, device and function in full: `0000:03:00.0`.
        case pci(address: String)
        /// nil: nothing is received, or what is sent vanishes.
        case pcap(receive: Capture?, transmit: Capture?)
        /// Receives nothing, and what is sent vanishes.
        case null
        /// `net_KIND_NAME,key=value…` as DPDK's `--vdev` has it.
        case vdev(devargs: String)
    }

    /// Where a pcap port reads from or writes to.
    public enum Capture: Sendable, Equatable {
        case file(String)
        case interface(String)
    }

    /// A virtio queue's layout (virtio 1.2, 2.7 and 2.8).
    public enum Ring: String, ConfigurationWord { case split, packed }

    /// What a tap's kernel may leave to whoever gets its packets: checksums and segmentation, checksums, or nothing.
    public enum Offloads: String, ConfigurationWord { case on, checksum, off }

    enum Switch: String, ConfigurationWord { case on, off }

    /// Who listens on a vhost-user socket: the forwarder as server, or the peer.
    public enum VhostRole: String, ConfigurationWord { case server, client }

    public enum Deliver: String, ConfigurationWord {
        /// Partial checksums and superframes, as far as the receiver took them.
        case offload
        /// Finished packets of at most `mtu`, whatever was negotiated.
        case full
    }

    /// How a packet whose checksum was verified leaves: as it is, or marked partial so that the receiver need not verify it again.
    public enum Verified: String, ConfigurationWord { case plain, reseed }

    /// What is made of a received packet's checksum beyond the driver's word.
    public enum ReceiveChecksum: String, ConfigurationWord {
        /// Nothing.
        case device
        /// A field that equals its pseudo-header sum is an unfinished one: for ports with no wire behind.
        case infer
        /// What is not known is checked in software.
        case verify
    }

    public var name: String
    public var driver: Driver
    public var queueCount: Int
    /// Who polls the receive queues; a subset of the daemon's, never empty.
    public var lcores: [Int]
    public var deliver: Deliver
    public var verified: Verified
    public var mtuBytes: Int
    /// nil: tags are nothing but bytes.
    public var vlan: VLANConfiguration?
    /// `infer` and `verify` may both be given; `device` alone is neither.
    public var receiveChecksum: [ReceiveChecksum] = [.device]
    public var line: Int

    static let mtuBytesDefault = 1500
    /// From what IPv4 demands of every link (RFC 791) to what a tap takes (65535 less an Ethernet header).
    static let mtuBytes = 68...65521
    static let queueCountMax = 64

    enum DriverWord: String, ConfigurationWord {
        case tap
        case vhostUser = "vhost-user"
        case virtioUser = "virtio-user"
        case afXDP = "af-xdp"
        case pci, pcap, null, vdev
        var keys: [String] {
            switch self {
            case .tap: ["interface", "netns", "persistent", "offloads"]
            case .vhostUser: ["path", "role"]
            case .virtioUser: ["path", "role", "ring", "mergeable"]
            case .afXDP: ["interface"]
            case .pci: ["address"]
            case .pcap: ["rx", "tx"]
            case .null: []
            case .vdev: ["devargs"]
            }
        }

        var queueCountMax: Int { self == .pcap ? 1 : PortConfiguration.queueCountMax }
    }

    static func keys(of driver: DriverWord?) -> Vocabulary {
        let own = driver?.keys ?? allKeys
        return Vocabulary(["driver"] + own + ["queues", "lcores", "deliver", "verified", "mtu", "vlan", "rx-checksum"])
    }

    /// Of any driver, each once.
    static let allKeys = DriverWord.allCases.flatMap(\.keys).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
}

extension PortConfiguration {
    /// nil if what is missing has no stand-in; it has been noted then.
    init?(reading reader: inout SectionReader, daemonLcores: [Int]) {
        let word = reader.choice("driver", of: DriverWord.self)
        _ = reader.require("driver", DriverWord.vocabulary.allowed)
        reader.checkKeys(Self.keys(of: word), elsewhere: Self.allKeys,
                         owner: "a \(word?.rawValue ?? "") port")
        line = reader.section.line
        queueCount = reader.integer("queues", in: 1...(word?.queueCountMax ?? Self.queueCountMax)) ?? 1
        mtuBytes = reader.integer("mtu", in: Self.mtuBytes) ?? Self.mtuBytesDefault
        vlan = VLANConfiguration(reading: &reader)
        deliver = reader.choice("deliver") ?? .offload
        // A tap's kernel ignores "verified" on write but honours "partial"; guests with native XDP or an older FreeBSD mishandle it.
        verified = reader.choice("verified") ?? (word == .tap ? .reseed : .plain)
        // AF_XDP and AF_PACKET lose the mark of what was never on a wire.
        let isMarkLost = word == .afXDP || word == .vdev && reader.entry("devargs")?.value.contains("af_packet") == true
        receiveChecksum = reader.choices("rx-checksum") ?? [isMarkLost ? .infer : .device]
        lcores = Self.lcores(reading: &reader, daemonLcores)
        let driver: Driver? = switch word {
        case .tap: Self.tap(reading: &reader)
        case .vhostUser: Self.socket(reading: &reader).map { .vhostUser(path: $0, role: $1) }
        case .virtioUser: Self.virtioUser(reading: &reader)
        case .afXDP: Self.afXDP(reading: &reader)
        case .pci: Self.pci(reading: &reader)
        case .pcap: Self.pcap(reading: &reader)
        case .null: .null
        case .vdev: Self.vdev(reading: &reader)
        case nil: nil
        }
        guard let driver, let name = reader.section.name else { return nil }
        self.driver = driver
        self.name = name
    }

    private static func lcores(reading reader: inout SectionReader, _ daemonLcores: [Int]) -> [Int] {
        guard let lcores = reader.cpus("lcores") else { return daemonLcores }
        let foreign = lcores.filter { !daemonLcores.contains($0) }
        // Where [apus] has no usable list that is the error to mend first.
        if !foreign.isEmpty, !daemonLcores.isEmpty {
            reader.report("lcores", "\(CPUList.text(foreign)) is not among the lcores of [apus]",
                          "allowed: \(CPUList.text(daemonLcores))")
        }
        return lcores
    }
}
