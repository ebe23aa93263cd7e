import Foundation
import Testing

@testable import Control

@Suite struct ConfigurationTests {
    private func load(_ text: String, directory: String = "/etc/apus") throws -> Configuration {
        try Configuration.load(text: text, source: "f", directory: directory, availableCPUs: [0, 1, 2, 3])
    }

    @Test func everyKeyHasItsValue() throws {
        let configuration = try load("""
            \u{FEFF}; everything that may be said
            [apus]
            name = edge.1 ; a comment
            lcores = 2\t# another
            memory = 1G
            hugepages = off
            idle = spin
            stats-socket = /tmp/a;b#c.sock
            [port vm0]
            driver = vhost-user
            path=/run/vm 0.sock
            role   =   client
            queues = 1
            lcores = 2
            deliver = full
            verified = reseed
            mtu = 9000
            rx-checksum = infer  verify
            [ port\thost0 ]
            driver = tap
            interface = apus-host0
            netns = blue
            verified = plain
            [wire w]
            ports = vm0\t host0
            [xdp firewall]
            object = filter.o
            program = filter
            ports = host0 vm0
            checksum = eager
            verify = kernel
            engine = interpreter
            map.rules = rules.json
            map.x.y = /srv/x.json
            """)
        #expect(configuration.daemon == DaemonConfiguration(
            name: "edge.1", lcores: [2], memoryBytes: 1 << 30, hugepages: .off, idle: .spin, statsSocket: "/tmp/a;b#c.sock", line: 2))
        #expect(configuration.ports == [
            PortConfiguration(name: "vm0", driver: .vhostUser(path: "/run/vm 0.sock", role: .client), queueCount: 1, lcores: [2],
                              deliver: .full, verified: .reseed, mtuBytes: 9000, receiveChecksum: [.infer, .verify], line: 9),
            PortConfiguration(name: "host0", driver: .tap(interface: "apus-host0", netns: "blue"), queueCount: 1, lcores: [2],
                              deliver: .offload, verified: .plain, mtuBytes: 1500, line: 19),
        ])
        #expect(configuration.wires == [WireConfiguration(name: "w", first: "vm0", second: "host0", line: 24)])
        #expect(configuration.programs == [XDPConfiguration(
            name: "firewall", object: "/etc/apus/filter.o", program: "filter", ports: ["host0", "vm0"], checksum: .eager, verify: .kernel,
            engine: .interpreter, maps: [.init(name: "rules", file: "/etc/apus/rules.json", line: 33), .init(name: "x.y", file: "/srv/x.json", line: 34)],
            line: 26)])
        #expect(configuration.wire(of: "host0")?.name == "w")
    }

    @Test func everyDriverHasItsKeys() throws {
        func driver(_ lines: String...) throws -> PortConfiguration.Driver {
            let text = "[apus]\nlcores = 0-1\n[port p]\n\(lines.joined(separator: "\n"))\n[port n]\ndriver = null\n[wire w]\nports = p n"
            return try load(text).ports[0].driver
        }
        #expect(try driver("driver = virtio-user", "path = /run/v") ==
            .virtioUser(path: "/run/v", role: .server, ring: .split, isMergeable: true))
        #expect(try driver("driver = virtio-user", "path = /run/v", "role = client", "ring = packed", "mergeable = off") ==
            .virtioUser(path: "/run/v", role: .client, ring: .packed, isMergeable: false))
        #expect(try driver("driver = af-xdp", "interface = eth1") == .afXDP(interface: "eth1"))
        #expect(try driver("driver = pci", "address = 3B:00.1") == .pci(address: "0000:3b:00.1"))
        #expect(try driver("driver = pcap", "rx = /a.pcap", "tx = eth1") == .pcap(receive: .file("/a.pcap"), transmit: .interface("eth1")))
        #expect(try driver("driver = pcap", "tx = /a.pcap") == .pcap(receive: nil, transmit: .file("/a.pcap")))
        #expect(try driver("driver = null") == .null)
        #expect(try driver("driver = vdev", "devargs = net_ring0,a=b") == .vdev(devargs: "net_ring0,a=b"))
    }

    @Test(arguments: [
        (["driver = af-xdp", "interface = eth1"], [.infer]), (["driver = vdev", "devargs = net_af_packet0,iface=eth1"], [.infer]),
        (["driver = vdev", "devargs = net_ring0"], [.device]), (["driver = pci", "address = 3b:00.1"], [.device]),
        (["driver = af-xdp", "interface = eth1", "rx-checksum = device"], [.device]),
    ] as [([String], [PortConfiguration.ReceiveChecksum])])
    func whoLosesTheMarkInfers(lines: [String], expected: [PortConfiguration.ReceiveChecksum]) throws {
        let text = "[apus]\nlcores = 0\n[port p]\n\(lines.joined(separator: "\n"))\n[port n]\ndriver = null\n[wire w]\nports = p n"
        #expect(try load(text).ports[0].receiveChecksum == expected)
    }

    @Test func oneDaemonMayHoldBothEndsOfASocket() throws {
        let configuration = try load("""
            [apus]
            lcores = 1,0
            [port a]
            driver = vhost-user
            path = /run/a
            queues = 2
            lcores = 0
            [port b]
            driver = virtio-user
            path = /run/a
            role = client
            [wire w]
            ports = a b
            """)
        #expect(configuration.daemon.lcores == [1, 0])
        #expect(configuration.ports.map(\.lcores) == [[0], [1, 0]])
        #expect(configuration.ports.map(\.queueCount) == [2, 1])
    }

    @Test func aBridgeHasItsVLANs() throws {
        let configuration = try load("""
            [apus]
            lcores = 1
            [port a]
            driver = null
            vlan = access 10
            [port b]
            driver = null
            vlan = trunk 20, 10,30-32
            [bridge br0]
            ports = b a
            ageing = 60
            addresses = 100
            """)
        #expect(configuration.ports.map(\.vlan) == [.access(10), .trunk([10, 20, 30, 31, 32])])
        #expect(configuration.bridges == [BridgeConfiguration(name: "br0", ports: ["b", "a"], ageingSeconds: 60, addressCountMax: 100,
                                                              portAddressCountMax: 50, line: 9)])
        #expect(configuration.bridge(of: "a")?.name == "br0")
        #expect(configuration.wire(of: "a") == nil)
    }

    @Test func whatIsNotSaidHasADefault() throws {
        let configuration = try load(BadConfiguration.good.joined(separator: "\r\n"))
        #expect(configuration.daemon == DaemonConfiguration(
            name: "apus0", lcores: [1], memoryBytes: 256 << 20, hugepages: .auto, idle: .spin, statsSocket: "/run/apus/apus0.sock", line: 1))
        #expect(configuration.ports.map(\.verified) == [.reseed, .plain])
        #expect(configuration.ports.map(\.deliver) == [.offload, .offload])
        #expect(configuration.ports.map(\.receiveChecksum) == [[.device], [.device]])
        #expect(configuration.ports.map(\.lcores) == [[1], [1]])
        #expect(configuration.ports[1].driver == .vhostUser(path: "/run/b.sock", role: .server))
        let program = try #require(configuration.programs.first)
        #expect(program.program == nil && program.checksum == .lazy && program.verify == .kernel && program.engine == .jit)
    }

    @Test func sectionsMayStandInAnyOrder() throws {
        let lines = BadConfiguration.good
        let reversed = try load((lines[10...] + lines[8..<10] + lines[5..<8] + lines[2..<5] + lines[0..<2]).joined(separator: "\n"))
        #expect(reversed.ports.map(\.name) == ["b", "a"])
        #expect(reversed.daemon.lcores == [1])
    }

    @Test func theSameInterfaceInTwoNamespacesIsTwoDevices() throws {
        let text = """
            [apus]
            lcores = 0
            [port a]
            driver = tap
            interface = eth0
            netns = blue
            [port b]
            driver = tap
            interface = eth0
            netns = red
            [wire w]
            ports = a b
            """
        #expect(try load(text).ports.count == 2)
    }

    @Test(arguments: [("/x.o", "/etc", "/x.o"), ("x.o", "/etc", "/etc/x.o"), ("../x.o", "", "../x.o")])
    func objectsAreRelativeToTheFile(object: String, directory: String, path: String) throws {
        var lines = BadConfiguration.good
        lines[11] = "object = \(object)"
        #expect(try load(lines.joined(separator: "\n"), directory: directory).programs.first?.object == path)
    }

    @Test func everyFileOfConfigsIsGood() throws {
        let directory = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../configs").standardized.path
        var ports: [String: [PortConfiguration.Driver]] = [:]
        for file in try FileManager.default.contentsOfDirectory(atPath: directory) {
            let configuration = try Configuration.load(path: "\(directory)/\(file)", availableCPUs: [0, 1])
            ports[file] = configuration.ports.map(\.driver)
            #expect(configuration.programs.map(\.object) == ["\(directory)/../.build/bpf/count.o"])
        }
        #expect(ports == [
            "demo.ini": [.tap(interface: "demo-left", netns: "demo-left"), .tap(interface: "demo-right", netns: "demo-right")],
            "two-taps.ini": [.tap(interface: "apus-left", netns: nil), .tap(interface: "apus-right", netns: nil)],
            "two-guests.ini": [.vhostUser(path: "/run/apus/vm0.vhost", role: .server), .vhostUser(path: "/run/apus/vm1.vhost", role: .server)],
        ])
    }

    @Test func theCPUsOfThisProcessAreFound() {
        #expect(!availableCPUs().isEmpty)
        #expect(availableCPUs().count <= ProcessInfo.processInfo.processorCount)
    }

    @Test(arguments: [("0", [0]), ("1-3,5", [1, 2, 3, 5]), (" 5 ,\t1", [5, 1])])
    func cpuListsAreRead(text: String, cpus: [Int]) throws {
        #expect(try CPUList.parse(text) == cpus)
    }

    @Test(arguments: [("32M", 32 << 20), ("1g", 1 << 30), ("4096K", 4 << 20), ("7", 7)])
    func sizesAreRead(text: String, bytes: Int) { #expect(ByteSize.parse(text) == bytes) }

    @Test(arguments: ["", "G", "1T", "-1G", "1.5G", "0x10", "１G", "ß"])
    func otherSizesAreNot(text: String) { #expect(ByteSize.parse(text) == nil) }

    @Test(arguments: [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("abc", "acb", 1), ("abc", "ac", 1), ("abc", "xbcd", 2), ("ca", "abc", 3)])
    func editDistance(a: String, b: String, distance: Int) {
        #expect(Vocabulary.editDistance(Array(a.utf8), Array(b.utf8)) == distance)
        #expect(Vocabulary.editDistance(Array(b.utf8), Array(a.utf8)) == distance)
    }
}
