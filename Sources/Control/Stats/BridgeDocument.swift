/// The reply to `bridge`: what each bridge knows.
public struct BridgeDocument: Codable, Sendable, Equatable {
    public struct Bridge: Codable, Sendable, Equatable {
        /// Addresses by port.
        public var ports: [String: Int]
        public var addresses: [Address]

        public init(ports: [String: Int], addresses: [Address]) {
            self.ports = ports
            self.addresses = addresses
        }
    }

    public struct Address: Codable, Sendable, Equatable {
        /// Six pairs of hex digits.
        public var address: String
        /// 0 where the bridge knows no VLANs.
        public var vlan: Int
        public var port: String
        /// Seconds since it was heard, to a sixteenth of the bridge's ageing time.
        public var age: Int

        public init(address: String, vlan: Int, port: String, age: Int) {
            self.address = address
            self.vlan = vlan
            self.port = port
            self.age = age
        }
    }

    public var bridges: [String: Bridge]

    public init(bridges: [String: Bridge]) { self.bridges = bridges }

    /// For people.
    public var table: String {
        let rows = bridges.sorted { $0.key < $1.key }.flatMap { name, bridge in
            bridge.addresses.sorted { ($0.vlan, $0.address) < ($1.vlan, $1.address) }.map {
                [name, $0.address, "\($0.vlan)", $0.port, "\($0.age)"]
            }
        }
        return StatsTable.table(["bridge", "address", "vlan", "port", "age"], rows)
    }
}

/// The reply to `ports`: what the ports are, not what they count.
public struct PortsDocument: Codable, Sendable, Equatable {
    public struct Port: Codable, Sendable, Equatable {
        public var index: UInt32
        /// Kind and device, as the start-up message has them.
        public var device: String
        public var queues: Int
        public var lcores: [Int]
        public var deliver: String
        /// Somebody is at the other end.
        public var up: Bool
        /// The section that it forwards by.
        public var forwarding: String

        public init(index: UInt32, device: String, queues: Int, lcores: [Int], deliver: String, up: Bool, forwarding: String) {
            self.index = index
            self.device = device
            self.queues = queues
            self.lcores = lcores
            self.deliver = deliver
            self.up = up
            self.forwarding = forwarding
        }
    }

    public var ports: [String: Port]

    public init(ports: [String: Port]) { self.ports = ports }

    /// For people.
    public var table: String {
        StatsTable.table(["port", "index", "up", "deliver", "queues", "lcores", "forwarding", "device"],
                         ports.sorted { $0.key < $1.key }.map { name, port in
                             [name, "\(port.index)", port.up ? "yes" : "no", port.deliver, "\(port.queues)", CPUList.text(port.lcores),
                              port.forwarding, port.device]
                         })
    }
}
