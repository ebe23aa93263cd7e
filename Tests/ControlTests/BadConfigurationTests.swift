import Testing

@testable import Control

/// A good file with some lines replaced, and the exact words an operator then reads.
struct BadConfiguration: Sendable, CustomTestStringConvertible {
    static let good = [
        "[apus]", "lcores = 1",
        "[port a]", "driver = tap", "interface = ta",
        "[port b]", "driver = vhost-user", "path = /run/b.sock",
        "[wire w]", "ports = a b",
        "[xdp x]", "object = x.o", "ports = a b",
    ]

    let lines: [Int: String]
    let diagnostics: [String]

    /// `lines` by number from 1; 14 appends.
    init(_ lines: [Int: String], _ diagnostics: String...) {
        self.lines = lines
        self.diagnostics = diagnostics
    }

    var text: String {
        (1...14).map { lines[$0] ?? ($0 == 14 ? "" : Self.good[$0 - 1]) }.joined(separator: "\n")
    }

    var testDescription: String { lines.sorted { $0.key < $1.key }.map { "\($0): \($1)" }.joined(separator: " | ") }
}

private let sections = "allowed: [apus], [port NAME], [wire NAME], [bridge NAME], [xdp NAME]"
private let tapKeys = "allowed: driver, interface, netns, persistent, offloads, queues, lcores, deliver, verified, mtu, vlan, rx-checksum"
private let vhostKeys = "allowed: driver, path, role, queues, lcores, deliver, verified, mtu, vlan, rx-checksum"
private let drivers = "allowed: tap, vhost-user, virtio-user, af-xdp, pci, pcap, null, vdev"
private let name = "use 1 to 31 of A-Z a-z 0-9 . _ -, a letter or digit first"
private let xdpKeys = "allowed: object, program, ports, checksum, verify, engine, map.NAME"

private let syntax: [BadConfiguration] = [
    .init([1: "[apus", 2: ""], "f:1: '[apus' has no ']'; write [kind name]"),
    .init([3: "[port a] b"], "f:3: ' b' stands behind ']'; put it on a line of its own"),
    .init([3: "[port a a]"], "f:3: '[port a a]' is not one or two words; write [kind name]"),
    .init([14: "[]"], "f:14: '[]' is not one or two words; write [kind name]"),
    .init([5: "interface ta\ninterface = ta"], "f:5: [port a]: 'interface ta' is no section, key or comment; write 'key = value'"),
    .init([5: "= 3\ninterface = ta"], "f:5: [port a]: there is no key before '='; write 'key = value'"),
    .init([5: "inter face = ta\ninterface = ta"], "f:5: [port a]: 'inter face' is not one word; write 'key = value'"),
    .init([1: "lcores = 1\n[apus]"], "f:1: 'lcores' belongs to no section; put a line such as [apus] above it"),
    .init([5: "interface = ta\ninterface = tb"], "f:6: [port a] interface: is already set on line 5; remove one of the two"),
    .init([14: "[port a]\ndriver = tap"], "f:14: [port a]: is already on line 3; merge the two, or give them different names"),
    .init([14: "[ apus\t]"], "f:14: [apus]: is already on line 1; merge the two, or give them different names"),
    .init([5: "interface = ta\u{1}"], "f:5: [port a]: the line contains the control byte 1; remove it"),
    .init([5: "interface = ta\r "], "f:5: [port a]: the line contains the control byte 13; remove it"),
    .init([5: "#" + String(repeating: "x", count: 4096)], "f:5: [port a]: the line is longer than 4096 bytes; shorten it"),
]

private let words: [BadConfiguration] = [
    .init([14: "[prot c]\nx = 1"], "f:14: [prot c]: unknown section; did you mean 'port'? \(sections)"),
    .init([14: "[logging]"], "f:14: [logging]: unknown section; \(sections)"),
    .init([14: "[bridge br0]\nprts = a b"],
          "f:14: [bridge br0]: has no 'ports'; name the ports that the bridge joins",
          "f:15: [bridge br0] prts: unknown key; did you mean 'ports'? allowed: ports, ageing, addresses, port-addresses"),
    .init([9: "[bridge w]", 10: "ports = a b\nageing = 0\naddresses = 63\nport-addresses = 5000"],
          "f:11: [bridge w] ageing: '0' is not a number from 1 to 1000000; write digits only",
          "f:12: [bridge w] addresses: '63' is not a number from 64 to 1048576; write digits only",
          "f:13: [bridge w] port-addresses: '5000' is not a number from 1 to 4096; write digits only"),
    .init([1: "[apus zero]"], "f:1: [apus zero]: takes no name; write [apus]"),
    .init([11: "[xdp]"], "f:11: [xdp]: has no name; write [xdp NAME]"),
    .init([11: "[xdp -x]"], "f:11: [xdp -x]: '-x' is no name; \(name)"),
    .init([11: "[xdp ö\u{202e}]"], "f:11: [xdp ö\\u{202e}]: 'ö\\u{202e}' is no name; \(name)"),
    .init([5: "interface = ta\ndrvier = tap"], "f:6: [port a] drvier: unknown key; did you mean 'driver'? \(tapKeys)"),
    .init([5: "interface = ta\nInterface = tb"], "f:6: [port a] Interface: unknown key; did you mean 'interface'? \(tapKeys)"),
    .init([5: "interface = ta\ncolour = red"], "f:6: [port a] colour: unknown key; \(tapKeys)"),
    .init([5: "interface = ta\npath = /x"], "f:6: [port a] path: a tap port has no such key; \(tapKeys)"),
    .init([8: "path = /run/b.sock\nnetns = n"], "f:9: [port b] netns: a vhost-user port has no such key; \(vhostKeys)"),
    .init([5: "interface = ta\nvlan = access 10"], "f:6: [port a] vlan: port a is in no [bridge]; only a bridge knows VLANs"),
    .init([5: "interface = ta\nvlan = access 10", 9: "[bridge w]"],
          "f:11: [bridge w] ports: port b has no 'vlan' and others of the bridge have one; give every port of a bridge one, or none"),
    .init([5: "interface = ta\nvlan = access 4095"],
          "f:6: [port a] vlan: 'access 4095' is neither 'access ID' nor 'trunk ID,ID…'; IDs are 1 to 4094, such as 'trunk 10,20-29'"),
    .init([5: "interface = ta\nvlan = 10"],
          "f:6: [port a] vlan: '10' is neither 'access ID' nor 'trunk ID,ID…'; IDs are 1 to 4094, such as 'trunk 10,20-29'"),
    .init([14: "[bridge v]\nports = a"],
          "f:15: [bridge v] ports: port a is already in [wire w]; a port is in one [wire] or [bridge] only",
          "f:15: [bridge v] ports: a bridge joins at least two ports; write 'ports = A B'"),
    .init([5: "interface = ta\nrx-checksum = guess"], "f:6: [port a] rx-checksum: unknown value 'guess'; allowed: device, infer, verify"),
    .init([5: "interface = ta\nrx-checksum = infer verfy"],
          "f:6: [port a] rx-checksum: unknown value 'verfy'; did you mean 'verify'? allowed: device, infer, verify"),
    .init([5: "interface = ta\nrx-checksum = infer infer"], "f:6: [port a] rx-checksum: 'infer' is named twice; name it once"),
    .init([5: "interface = ta\nrx-checksum ="], "f:6: [port a] rx-checksum: has no value; give one or remove the line"),
    .init([12: "object = x.o\nmap.cfg ="], "f:13: [xdp x] map.cfg: has no value; give one or remove the line"),
    .init([12: "object = x.o\nmap. = cfg.txt"], "f:13: [xdp x] map.: unknown key; did you mean 'map.NAME'? \(xdpKeys)"),
    .init([12: "object = x.o\nsuperframes = whole"], "f:13: [xdp x] superframes: is not in this version; \(xdpKeys)"),
    .init([12: "object = x.o\nchain = object"], "f:13: [xdp x] chain: is not in this version; \(xdpKeys)"),
    .init([4: "driver = tun"], "f:4: [port a] driver: unknown value 'tun'; \(drivers)"),
    .init([7: "driver = vhost"], "f:7: [port b] driver: unknown value 'vhost'; did you mean 'vhost-user'? \(drivers)"),
    .init([4: "driver = null"], "f:5: [port a] interface: a null port has no such key; allowed: driver, queues, lcores, deliver, verified, mtu, vlan, rx-checksum"),
    .init([12: "object = x.o\nengine = ebpf"], "f:13: [xdp x] engine: unknown value 'ebpf'; allowed: jit, interpreter"),
    .init([12: "object = x.o\nverify = sandbx"], "f:13: [xdp x] verify: unknown value 'sandbx'; did you mean 'sandbox'? allowed: kernel, sandbox"),
    .init([12: "object = x.o\nchecksum = lasy"],
          "f:13: [xdp x] checksum: unknown value 'lasy'; did you mean 'lazy'? allowed: lazy, eager, full"),
    .init([2: "lcores = 1\nidle = doze"], "f:3: [apus] idle: unknown value 'doze'; allowed: spin, pause, sleep"),
    .init([2: "lcores = 1\nhugepages = yes"], "f:3: [apus] hugepages: unknown value 'yes'; allowed: auto, on, off"),
    .init([8: "path = /run/b.sock\nrole = sever"],
          "f:9: [port b] role: unknown value 'sever'; did you mean 'server'? allowed: server, client"),
]

private let values: [BadConfiguration] = [
    .init([2: "lcores ="], "f:2: [apus] lcores: has no value; give one or remove the line"),
    .init([2: ""], "f:1: [apus]: has no 'lcores'; name the CPU that polls, such as 'lcores = 1'"),
    .init([2: "lcores = 9"], "f:2: [apus] lcores: CPU 9 is not available to this process; available: 0-3,6"),
    .init([2: "lcores = one"], "f:2: [apus] lcores: 'one' is no CPU number or range; write a list such as 1-3,5"),
    .init([2: "lcores = 1,"], "f:2: [apus] lcores: '' is no CPU number or range; write a list such as 1-3,5"),
    .init([2: "lcores = 3-1"], "f:2: [apus] lcores: the range '3-1' runs backwards; write a list such as 1-3,5"),
    .init([2: "lcores = 1,0-2"], "f:2: [apus] lcores: CPU 1 is named twice; write a list such as 1-3,5"),
    .init([2: "lcores = 99999999999999999999"],
          "f:2: [apus] lcores: '99999999999999999999' is no CPU number or range; write a list such as 1-3,5"),
    .init([2: "lcores = 0-9223372036854775807"], "f:2: [apus] lcores: there is no CPU above 8191; write a list such as 1-3,5"),
    .init([2: "lcores = 1\nname = ../x"], "f:3: [apus] name: '../x' is no name; \(name)"),
    .init([2: "lcores = 1\nmemory = 12"],
          "f:3: [apus] memory: '12' is no size from 32M to 1024G; write a number with K, M or G, such as 256M"),
    .init([2: "lcores = 1\nmemory = 9223372036854775807G"],
          "f:3: [apus] memory: '9223372036854775807G' is no size from 32M to 1024G; write a number with K, M or G, such as 256M"),
    .init([2: "lcores = 1\nmemory = 1ß"],
          "f:3: [apus] memory: '1ß' is no size from 32M to 1024G; write a number with K, M or G, such as 256M"),
    .init([2: "lcores = 1\nstats-socket = a.sock"],
          "f:3: [apus] stats-socket: 'a.sock' is not an absolute path of a file; start it with '/', such as /run/apus/apus0.sock"),
    .init([4: ""], "f:3: [port a]: has no 'driver'; \(drivers)"),
    .init([5: ""], "f:3: [port a]: has no 'interface'; name the device, such as 'interface = apus-a'"),
    .init([8: ""], "f:6: [port b]: has no 'path'; name the socket, such as 'path = /run/apus/b.sock'"),
    .init([5: "interface = abcdefghijklmnop"],
          "f:5: [port a] interface: 'abcdefghijklmnop' is 16 bytes long; use 1 to 15 of A-Z a-z 0-9 . _ -"),
    .init([5: "interface = tap%d"], "f:5: [port a] interface: 'tap%d' is no name of an interface; use 1 to 15 of A-Z a-z 0-9 . _ -"),
    .init([5: "interface = ta\nnetns = /run/n"],
          "f:6: [port a] netns: '/run/n' is no name of a network namespace; use a name that 'ip netns' lists"),
    .init([8: "path = b.sock"],
          "f:8: [port b] path: 'b.sock' is not an absolute path of a file; start it with '/', such as /run/apus/b.sock"),
    .init([8: "path = /" + String(repeating: "p", count: 107)],
          "f:8: [port b] path: is 108 bytes long; a socket's path has at most 107"),
    .init([5: "interface = ta\nqueues = 65"], "f:6: [port a] queues: '65' is not a number from 1 to 64; write digits only"),
    .init([4: "driver = pcap", 5: "rx = /a.pcap\nqueues = 2"], "f:6: [port a] queues: '2' is not a number from 1 to 1; write digits only"),
    .init([4: "driver = pcap", 5: ""], "f:3: [port a]: has neither 'rx' nor 'tx'; name what is read or written: /a/file.pcap, or an interface"),
    .init([4: "driver = pcap", 5: "tx = a/b.pcap"],
          "f:5: [port a] tx: 'a/b.pcap' is not an absolute path of a file; start it with '/', or name an interface"),
    .init([4: "driver = pcap", 5: "rx = /a,b.pcap"],
          "f:5: [port a] rx: '/a,b.pcap' has a ',' or '=' in it, which DPDK cannot take; choose another name"),
    .init([4: "driver = pcap", 5: "rx = abcdefghijklmnop"],
          "f:5: [port a] rx: 'abcdefghijklmnop' is 16 bytes long; use 1 to 15 of A-Z a-z 0-9 . _ -"),
    .init([8: "path = /run/b=c.sock"],
          "f:8: [port b] path: '/run/b=c.sock' has a ',' or '=' in it, which DPDK cannot take; choose another name"),
    .init([7: "driver = virtio-user", 8: ""], "f:6: [port b]: has no 'path'; name the socket, such as 'path = /run/apus/b.sock'"),
    .init([7: "driver = virtio-user", 8: "path = /run/b.sock\nring = round\nmergeable = yes"],
          "f:9: [port b] ring: unknown value 'round'; allowed: split, packed",
          "f:10: [port b] mergeable: unknown value 'yes'; allowed: on, off"),
    .init([4: "driver = af-xdp", 5: ""], "f:3: [port a]: has no 'interface'; name the device, such as 'interface = apus-a'"),
    .init([4: "driver = pci", 5: ""], "f:3: [port a]: has no 'address'; name the device, such as 'address = 0000:03:00.0'"),
    .init([4: "driver = pci", 5: "address = 0000:03:00"],
          "f:5: [port a] address: '0000:03:00' is no PCI address; write DOMAIN:BUS:DEVICE.FUNCTION in hex, such as 0000:03:00.0"),
    .init([4: "driver = pci", 5: "address = 3:0.0"],
          "f:5: [port a] address: '3:0.0' is no PCI address; write DOMAIN:BUS:DEVICE.FUNCTION in hex, such as 0000:03:00.0"),
    .init([4: "driver = vdev", 5: ""],
          "f:3: [port a]: has no 'devargs'; write what follows DPDK's --vdev, such as 'devargs = net_ring0'"),
    .init([4: "driver = vdev", 5: "devargs = net_vhost0,iface=/v0"],
          "f:5: [port a] devargs: 'net_vhost0,iface=/v0' is a port to a guest, and Apus has its own; write 'driver = vhost-user' and its socket's 'path'"),
    .init([4: "driver = vdev", 5: "devargs = eth0"],
          "f:5: [port a] devargs: 'eth0' names no virtual network device; start with net_KIND and a name of your own, such as net_ring0"),
    .init([5: "interface = ta\nqueues = 0"], "f:6: [port a] queues: '0' is not a number from 1 to 64; write digits only"),
    .init([5: "interface = ta\nmtu = 67"], "f:6: [port a] mtu: '67' is not a number from 68 to 65521; write digits only"),
    .init([5: "interface = ta\nmtu = +1500"], "f:6: [port a] mtu: '+1500' is not a number from 68 to 65521; write digits only"),
    .init([5: "interface = ta\nlcores = 2"], "f:6: [port a] lcores: 2 is not among the lcores of [apus]; allowed: 1"),
    .init([12: "object = x.o\nprogram = a b"],
          "f:13: [xdp x] program: 'a b' is not one word; one program a section; name a second [xdp] section for another"),
]

private let references: [BadConfiguration] = [
    .init([1: "", 2: ""], "f:1: [apus]: is missing; add [apus] with 'lcores = N'"),
    .init(Dictionary(uniqueKeysWithValues: (3...13).map { ($0, "") }),
          "f:1: [port NAME]: is missing; add two ports and a [wire NAME] that joins them"),
    .init([9: "", 10: ""],
          // Without its header the wire's key falls to the port above.
          "f:3: [port a]: port a is in no [wire] or [bridge]; add a [wire NAME] with 'ports = a OTHER'",
          "f:6: [port b]: port b is in no [wire] or [bridge]; add a [wire NAME] with 'ports = b OTHER'"),
    .init([10: ""],
          "f:3: [port a]: port a is in no [wire] or [bridge]; add a [wire NAME] with 'ports = a OTHER'",
          "f:6: [port b]: port b is in no [wire] or [bridge]; add a [wire NAME] with 'ports = b OTHER'",
          "f:9: [wire w]: has no 'ports'; write 'ports = A B'"),
    .init([14: "[port c]\ndriver = tap\ninterface = tc"],
          "f:14: [port c]: port c is in no [wire] or [bridge]; add a [wire NAME] with 'ports = c OTHER'"),
    .init([10: "ports = a a"],
          "f:6: [port b]: port b is in no [wire] or [bridge]; add a [wire NAME] with 'ports = b OTHER'",
          "f:10: [wire w] ports: 'a' is named twice; name it once",
          "f:10: [wire w] ports: a wire joins two different ports, not 1; write 'ports = A B'"),
    .init([10: "ports = a b c"],
          "f:10: [wire w] ports: there is no port 'c'; allowed: a, b",
          "f:10: [wire w] ports: a wire joins two different ports, not 3; write 'ports = A B'"),
    .init([14: "[wire v]\nports = b a"],
          "f:15: [wire v] ports: port b is already in [wire w]; a port is in one [wire] or [bridge] only",
          "f:15: [wire v] ports: port a is already in [wire w]; a port is in one [wire] or [bridge] only"),
    .init([3: "[port left]", 10: "ports = lefd b", 13: "ports = left"],
          "f:3: [port left]: port left is in no [wire] or [bridge]; add a [wire NAME] with 'ports = left OTHER'",
          "f:10: [wire w] ports: there is no port 'lefd'; did you mean 'left'? allowed: left, b"),
    .init([13: "ports = a, b"], "f:13: [xdp x] ports: there is no port 'a,'; did you mean 'a'? allowed: a, b"),
    .init([13: ""], "f:11: [xdp x]: has no 'ports'; name the ports the program runs on"),
    .init([12: ""], "f:11: [xdp x]: has no 'object'; name the file, such as 'object = count.o'"),
    .init([14: "[xdp y]\nobject = y.o\nports = b"],
          "f:16: [xdp y] ports: port b already has [xdp x], and chains are not in this version; one [xdp] a port in this version"),
    .init([7: "driver = tap", 8: "interface = ta"],
          "f:8: [port b] interface: 'ta' is already the interface of [port a]; give each port its own"),
    .init([4: "driver = vhost-user", 5: "path = /run//./b.sock"],
          "f:8: [port b] path: '/run/b.sock' is already the socket of [port a]; give each its own"),
    .init([4: "driver = virtio-user", 5: "path = /run/b.sock"],
          "f:8: [port b] path: '/run/b.sock' is already the socket of [port a]; give each its own"),
    .init([4: "driver = virtio-user", 5: "path = /run/b.sock\nrole = client", 8: "path = /run/b.sock\nrole = client"],
          "f:9: [port b] path: '/run/b.sock' is already the socket of [port a]; give each its own"),
    .init([4: "driver = vdev", 5: "devargs = net_ring0", 7: "driver = vdev", 8: "devargs = net_ring0,x=1"],
          "f:8: [port b] devargs: 'net_ring0' is already the device of [port a]; give each port its own"),
    .init([4: "driver = pci", 5: "address = 3A:00.0", 7: "driver = pci", 8: "address = 0000:3a:00.0"],
          "f:8: [port b] address: '0000:3a:00.0' is already the device of [port a]; give each port its own"),
    .init([8: "path = /run/apus/apus0.sock"],
          "f:8: [port b] path: '/run/apus/apus0.sock' is already the socket of [apus]; give each its own"),
    // Everything at once, in the order of the file.
    .init([2: "lcores = 9", 4: "driver = taap", 8: "path = /run/b.sock\nmtu = many", 12: "objekt = x.o"],
          "f:2: [apus] lcores: CPU 9 is not available to this process; available: 0-3,6",
          "f:4: [port a] driver: unknown value 'taap'; did you mean 'tap'? \(drivers)",
          "f:9: [port b] mtu: 'many' is not a number from 68 to 65521; write digits only",
          "f:12: [xdp x]: has no 'object'; name the file, such as 'object = count.o'",
          "f:13: [xdp x] objekt: unknown key; did you mean 'object'? \(xdpKeys)"),
]

@Suite struct BadConfigurationTests {
    static let availableCPUs: Set<Int> = [0, 1, 2, 3, 6]

    @Test func theUnchangedFileIsGood() throws {
        _ = try Configuration.load(text: BadConfiguration([:]).text, source: "f", availableCPUs: Self.availableCPUs)
    }

    @Test(arguments: syntax + words + values + references)
    func isRefused(_ bad: BadConfiguration) {
        let error = #expect(throws: ConfigurationErrors.self) {
            try Configuration.load(text: bad.text, source: "f", availableCPUs: Self.availableCPUs)
        }
        #expect(error?.diagnostics.map(\.description) == bad.diagnostics)
    }

    @Test func bytesThatAreNoTextAreRefused() {
        let bytes = Array("[apus]\n".utf8) + [0xC3, 0x28, 0x0A] + Array("lcores = 1".utf8)
        let ini = INI(parsing: bytes, source: "f")
        #expect(ini.diagnostics.map(\.description) == ["f:2: [apus]: the line is not UTF-8; save the file as UTF-8"])
        #expect(ini.sections.first?.entries.map(\.value) == ["1"])
    }

    @Test func aFileThatCannotBeReadIsOneSentence() {
        for (path, words) in [("/nonexistent/a.ini", "no such file or directory"), ("/", "is a directory")] {
            let error = #expect(throws: ConfigurationErrors.self) { try Configuration.load(path: path, availableCPUs: [0]) }
            #expect(error?.description == "\(path): cannot be read: \(words); give the path of a configuration file")
        }
        let error = #expect(throws: ConfigurationErrors.self) { try Configuration.load(path: "/dev/zero", availableCPUs: [0]) }
        #expect(error?.description == "/dev/zero: is longer than 1048576 bytes; give a configuration file")
    }
}
