/// A `[port NAME]` section.
public struct PortConfiguration: Sendable, Equatable {
    public enum Driver: Sendable, Equatable {
        /// `netns` is a name as `ip netns` knows it: the device is moved there.
        case tap(interface: String, netns: String?)
        case vhostUser(path: String, role: VhostRole)
    }

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
    /// `infer` and `verify` may both be given; `device` alone is neither.
    public var receiveChecksum: [ReceiveChecksum] = [.device]
    public var line: Int

    static let mtuBytesDefault = 1500
    /// From what IPv4 demands of every link (RFC 791) to what a tap takes (65535 less an Ethernet header).
    static let mtuBytes = 68...65521

    enum DriverWord: String, ConfigurationWord {
        case tap
        case vhostUser = "vhost-user"
        static var later: [String] { ["virtio-user", "af-xdp", "pci", "pcap", "null", "vdev"] }
        var keys: [String] {
            switch self {
            case .tap: ["interface", "netns"]
            case .vhostUser: ["path", "role"]
            }
        }
    }

    static func keys(of driver: DriverWord?) -> Vocabulary {
        let own = driver?.keys ?? DriverWord.allCases.flatMap(\.keys)
        return Vocabulary(["driver"] + own + ["queues", "lcores", "deliver", "verified", "mtu", "rx-checksum"],
                          later: ["address", "rx", "tx", "devargs", "offloads", "vlan"])
    }
}

extension PortConfiguration {
    /// nil if what is missing has no stand-in; it has been noted then.
    init?(reading reader: inout SectionReader, daemonLcores: [Int]) {
        let word = reader.choice("driver", of: DriverWord.self)
        _ = reader.require("driver", DriverWord.vocabulary.allowed)
        reader.checkKeys(Self.keys(of: word), elsewhere: DriverWord.allCases.flatMap(\.keys),
                         owner: "a \(word?.rawValue ?? "") port")
        line = reader.section.line
        queueCount = 1
        if let given = reader.integer("queues", in: 1...64), given > 1 {
            reader.report("queues", "\(given) queues are not in this version", "one queue in this version")
        }
        mtuBytes = reader.integer("mtu", in: Self.mtuBytes) ?? Self.mtuBytesDefault
        deliver = reader.choice("deliver") ?? .offload
        // A tap's kernel ignores "verified" on write but honours "partial"; guests with native XDP or an older FreeBSD mishandle it.
        verified = reader.choice("verified") ?? (word == .tap ? .reseed : .plain)
        receiveChecksum = reader.choices("rx-checksum") ?? [.device]
        lcores = Self.lcores(reading: &reader, daemonLcores)
        let driver: Driver? = switch word {
        case .tap: Self.tap(reading: &reader)
        case .vhostUser: Self.vhostUser(reading: &reader)
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

    private static func tap(reading reader: inout SectionReader) -> Driver? {
        let interface = reader.require("interface", "name the device, such as 'interface = apus-\((reader.section.name ?? "port").prefix(10))'")
        let netns = reader.entry("netns")?.value
        var isValid = true
        if let interface, let fault = interfaceFault(interface) {
            reader.report("interface", "\(interface.quoted) \(fault)", "use 1 to 15 of A-Z a-z 0-9 . _ -")
            isValid = false
        }
        if let netns, netns.utf8.contains(UInt8(ascii: "/")) || netns == "." || netns == ".." || netns.utf8.count > 255 {
            reader.report("netns", "\(netns.quoted) is no name of a network namespace", "use a name that 'ip netns' lists")
            isValid = false
        }
        guard let interface, isValid else { return nil }
        return .tap(interface: interface, netns: netns)
    }

    /// What the kernel's `dev_valid_name` refuses, and '%', for which it would put a number.
    private static func interfaceFault(_ name: String) -> String? {
        if name.utf8.count > 15 { return "is \(name.utf8.count) bytes long" }
        let isRefused = name == "." || name == ".." || name.unicodeScalars.contains {
            "/:% \t".unicodeScalars.contains($0) || !$0.isASCII
        }
        return isRefused ? "is no name of an interface" : nil
    }

    private static func vhostUser(reading reader: inout SectionReader) -> Driver? {
        let role: VhostRole = reader.choice("role") ?? .server
        guard let given = reader.require("path", "name the socket, such as 'path = /run/apus/\(reader.section.name ?? "port").sock'"),
              let path = reader.checkedSocketPath(given, "path") else { return nil }
        return .vhostUser(path: path, role: role)
    }
}
