public import Foundation

/// The reply to `stats`. Its JSON names are a promise to scripts and monitoring: design.md section 4 lists them.
public struct StatsDocument: Codable, Sendable, Equatable {
    public var ports: [String: PortStats]
    public var checksum: ChecksumStats
    /// By the name of the `[xdp]` section.
    public var xdp: [String: ProgramStats]
    /// By CPU number.
    public var lcores: [Int: LcoreStats]
    /// By the name of the pool. Not among the names of design.md, so a document without it is one too.
    public var memory: [String: PoolStats]?

    public init(ports: [String: PortStats] = [:], checksum: ChecksumStats = .init(), xdp: [String: ProgramStats] = [:],
                lcores: [Int: LcoreStats] = [:]) {
        self.ports = ports
        self.checksum = checksum
        self.xdp = xdp
        self.lcores = lcores
    }

    /// One line.
    public var json: Data { ControlReply.json(self) }
}

/// Packet buffers of one size.
public struct PoolStats: Codable, Sendable, Equatable {
    public var buffers: Int
    /// Of them in packets and in devices' rings, as of now.
    public var used: Int

    public init(buffers: Int, used: Int) {
        self.buffers = buffers
        self.used = used
    }
}

public struct PortStats: Codable, Sendable, Equatable {
    /// What programs see as ifindex.
    public var index: UInt32 = 0
    public var rxPackets: UInt64 = 0
    public var rxBytes: UInt64 = 0
    public var txPackets: UInt64 = 0
    public var txBytes: UInt64 = 0
    public var rxSuperframes: UInt64 = 0
    public var txSuperframes: UInt64 = 0
    // Not among the names of design.md, so a document without them is one too.
    /// Packets made: by cutting superframes on the way out, less the superframes themselves, and by flooding. Over all
    /// ports always: received + created = transmitted + dropped.
    public var created: UInt64?
    /// Bursts sent by a queue that lcores share, and those that waited for another lcore.
    public var sharedBursts: UInt64?
    public var sharedWaits: UInt64?
    /// Packets whose source a bridge had no room to remember.
    public var notLearned: UInt64?
    /// By reason.
    public var drops: [String: UInt64] = [:]

    public init() {}

    enum CodingKeys: String, CodingKey {
        case index, drops, created
        case rxPackets = "rx_packets", rxBytes = "rx_bytes", txPackets = "tx_packets", txBytes = "tx_bytes"
        case rxSuperframes = "rx_superframes", txSuperframes = "tx_superframes"
        case sharedBursts = "shared_bursts", sharedWaits = "shared_waits", notLearned = "not_learned"
    }
}

public struct ChecksumStats: Codable, Sendable, Equatable {
    /// Packets by state.
    public struct States: Codable, Sendable, Equatable {
        public var none: UInt64 = 0
        public var bad: UInt64 = 0
        public var unnecessary: UInt64 = 0
        public var partial: UInt64 = 0

        public init() {}
    }

    /// Full checksums in software by cause; there is no other.
    public struct Causes: Codable, Sendable, Equatable {
        public var xdpWrite: UInt64 = 0
        public var xdpRead: UInt64 = 0
        public var egress: UInt64 = 0
        public var segment: UInt64 = 0
        public var verify: UInt64 = 0
        public var driver: UInt64 = 0
        public var mode: UInt64 = 0

        public init() {}

        enum CodingKeys: String, CodingKey {
            case xdpWrite = "xdp_write", xdpRead = "xdp_read", egress, segment, verify, driver, mode
        }
    }

    public var rx = States()
    public var tx = States()
    public var softwareFull = Causes()
    public var softwareFullBytes: UInt64 = 0
    /// Mended by difference.
    public var difference: UInt64 = 0
    public var reseeded: UInt64 = 0
    public var ipHeader: UInt64 = 0
    public var malformed: UInt64 = 0

    public init() {}

    enum CodingKeys: String, CodingKey {
        case rx, tx, difference, reseeded, malformed
        case softwareFull = "software_full", softwareFullBytes = "software_full_bytes", ipHeader = "ip_header"
    }
}

public struct ProgramStats: Codable, Sendable, Equatable {
    public var packets: UInt64 = 0
    /// Runs that wrote to the packet.
    public var written: UInt64 = 0
    /// Runs that looked at an unfinished checksum.
    public var looked: UInt64 = 0
    public var aborted: UInt64 = 0
    public var drop: UInt64 = 0
    public var pass: UInt64 = 0
    public var tx: UInt64 = 0
    public var redirect: UInt64 = 0
    public var cycles: UInt64 = 0

    public init() {}
}

public struct LcoreStats: Codable, Sendable, Equatable {
    public var polls: UInt64 = 0
    public var busyPolls: UInt64 = 0
    public var packets: UInt64 = 0
    public var cyclesBusy: UInt64 = 0
    public var cyclesTotal: UInt64 = 0
    /// Looks at queues that cost a system call which found nothing, beside cheaper ones. Not among the design's names.
    public var emptyLooks: UInt64?
    public var cyclesEmptyLooks: UInt64?

    public init() {}

    enum CodingKeys: String, CodingKey {
        case polls, packets
        case emptyLooks = "empty_looks", cyclesEmptyLooks = "cycles_empty_looks"
        case busyPolls = "busy_polls", cyclesBusy = "cycles_busy", cyclesTotal = "cycles_total"
    }
}
