/// The keys that each kind of port has for itself. nil if what is missing has no stand-in; it has been noted then.
extension PortConfiguration {
    static func tap(reading reader: inout SectionReader) -> Driver? {
        let interface = interface("interface", reading: &reader)
        let netns = reader.entry("netns")?.value
        if let netns, netns.utf8.contains(UInt8(ascii: "/")) || netns == "." || netns == ".." || netns.utf8.count > 255 {
            reader.report("netns", "\(netns.quoted) is no name of a network namespace", "use a name that 'ip netns' lists")
            return nil
        }
        let persistent: Switch = reader.choice("persistent") ?? .off
        let offloads: Offloads = reader.choice("offloads") ?? .on
        return interface.map { .tap(interface: $0, netns: netns, isPersistent: persistent == .on, offloads: offloads) }
    }

    /// vhost-user and virtio-user: the two ends of a socket.
    static func socket(reading reader: inout SectionReader) -> (path: String, role: VhostRole)? {
        let role: VhostRole = reader.choice("role") ?? .server
        guard let given = reader.require("path", "name the socket, such as 'path = /run/apus/\(reader.section.name ?? "port").sock'"),
              let path = reader.checkedSocketPath(given, "path"), isArgument("path", path, &reader) else { return nil }
        return (path, role)
    }

    static func virtioUser(reading reader: inout SectionReader) -> Driver? {
        let ring: Ring = reader.choice("ring") ?? .split
        let mergeable: Switch = reader.choice("mergeable") ?? .on
        return socket(reading: &reader).map { .virtioUser(path: $0, role: $1, ring: ring, isMergeable: mergeable == .on) }
    }

    static func afXDP(reading reader: inout SectionReader) -> Driver? {
        interface("interface", reading: &reader).map { .afXDP(interface: $0) }
    }

    static func pci(reading reader: inout SectionReader) -> Driver? {
        guard let given = reader.require("address", "name the device, such as 'address = 0000:03:00.0'") else { return nil }
        // The domain may be left out, as in lspci's lines.
        let full = given.split(separator: ":", omittingEmptySubsequences: false).count == 2 ? "0000:\(given)" : given
        let parts = full.split(omittingEmptySubsequences: false) { $0 == ":" || $0 == "." }
        let isHex = parts.allSatisfy { $0.utf8.allSatisfy { Character(UnicodeScalar($0)).isHexDigit } }
        guard isHex, parts.map(\.utf8.count) == [4, 2, 2, 1], full.utf8.count == 12, full.utf8.dropLast().last == UInt8(ascii: ".") else {
            reader.report("address", "\(given.quoted) is no PCI address", "write DOMAIN:BUS:DEVICE.FUNCTION in hex, such as 0000:03:00.0")
            return nil
        }
        return .pci(address: full.lowercased())
    }

    static func pcap(reading reader: inout SectionReader) -> Driver? {
        if reader.entry("rx") == nil, reader.entry("tx") == nil, reader.section.isComplete {
            reader.report(nil, "has neither 'rx' nor 'tx'", "name what is read or written: /a/file.pcap, or an interface")
            return nil
        }
        let receive = capture("rx", reading: &reader), transmit = capture("tx", reading: &reader)
        guard receive != nil || reader.entry("rx") == nil, transmit != nil || reader.entry("tx") == nil else { return nil }
        return .pcap(receive: receive, transmit: transmit)
    }

    static func vdev(reading reader: inout SectionReader) -> Driver? {
        guard let given = reader.require("devargs", "write what follows DPDK's --vdev, such as 'devargs = net_ring0'") else { return nil }
        let device = given.split(separator: ",", omittingEmptySubsequences: false)[0]
        guard device.hasPrefix("net_"), device.utf8.count > 4, !given.contains(" "), !given.contains("\t") else {
            reader.report("devargs", "\(given.quoted) names no virtual network device", "start with net_KIND and a name of your own, such as net_ring0")
            return nil
        }
        guard !device.hasPrefix("net_vhost") else {
            reader.report("devargs", "\(given.quoted) is a port to a guest, and Apus has its own", "write 'driver = vhost-user' and its socket's 'path'")
            return nil
        }
        return .vdev(devargs: given)
    }

    // MARK: Values

    /// A path is a file; anything else is a device of the kernel.
    private static func capture(_ key: String, reading reader: inout SectionReader) -> Capture? {
        guard let given = reader.entry(key)?.value else { return nil }
        if given.utf8.contains(UInt8(ascii: "/")) {
            guard given.utf8.first == UInt8(ascii: "/"), given.utf8.last != UInt8(ascii: "/") else {
                reader.report(key, "\(given.quoted) is not an absolute path of a file", "start it with '/', or name an interface")
                return nil
            }
            return isArgument(key, given, &reader) ? .file(given) : nil
        }
        return interface(key, reading: &reader).map { .interface($0) }
    }

    private static func interface(_ key: String, reading reader: inout SectionReader) -> String? {
        let example = "apus-\((reader.section.name ?? "port").prefix(10))"
        guard let name = reader.require(key, "name the device, such as 'interface = \(example)'") else { return nil }
        guard let fault = interfaceFault(name) else { return isArgument(key, name, &reader) ? name : nil }
        reader.report(key, "\(name.quoted) \(fault)", "use 1 to 15 of A-Z a-z 0-9 . _ -")
        return nil
    }

    /// What the kernel's `dev_valid_name` refuses, and '%', for which it would put a number.
    private static func interfaceFault(_ name: String) -> String? {
        if name.utf8.count > 15 { return "is \(name.utf8.count) bytes long" }
        let isRefused = name == "." || name == ".." || name.unicodeScalars.contains {
            "/:% \t".unicodeScalars.contains($0) || !$0.isASCII
        }
        return isRefused ? "is no name of an interface" : nil
    }

    /// Whether DPDK's own syntax can carry the value: it cuts at ',' and '=' and knows no quotes.
    private static func isArgument(_ key: String, _ value: String, _ reader: inout SectionReader) -> Bool {
        guard value.utf8.contains(where: { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "=") }) else { return true }
        reader.report(key, "\(value.quoted) has a ',' or '=' in it, which DPDK cannot take", "choose another name")
        return false
    }
}
