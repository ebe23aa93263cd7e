/// The `[apus]` section: the daemon itself.
public struct DaemonConfiguration: Sendable, Equatable {
    public enum Hugepages: String, ConfigurationWord {
        /// Hugepages if there are enough, otherwise normal pages with a warning.
        case auto
        case on
        case off
    }

    public enum Idle: String, ConfigurationWord {
        /// Polls without a break.
        case spin
        /// Gives the core's other thread room between polls that found nothing.
        case pause
        /// Sleeps for some microseconds once nothing has come for a while.
        case sleep
    }

    public var name: String
    /// Polling CPUs, in the order of the file; never empty.
    public var lcores: [Int]
    public var memoryBytes: Int
    public var hugepages: Hugepages
    public var idle: Idle
    public var statsSocket: String
    /// Where the section starts, for errors found later.
    public var line: Int

    static let nameDefault = "apus0"
    static let memoryBytesDefault = 256 << 20
    /// Below this the rings of two ports do not fit; above it a unit was mistaken.
    static let memoryBytes = (32 << 20)...(1 << 40)
    static let keys = Vocabulary(["name", "lcores", "memory", "hugepages", "idle", "stats-socket"])
}

extension DaemonConfiguration {
    /// Always gives a value, so that the other sections can be checked against it.
    init(reading reader: inout SectionReader, availableCPUs: Set<Int>) {
        reader.checkKeys(Self.keys)
        line = reader.section.line
        hugepages = reader.choice("hugepages") ?? .auto
        idle = reader.choice("idle") ?? .spin
        name = Self.nameDefault
        if let given = reader.entry("name")?.value {
            if Name.isValid(given) { name = given } else { reader.report("name", "\(given.quoted) is no name", Name.rule) }
        }
        memoryBytes = Self.memoryBytesDefault
        if let given = reader.entry("memory")?.value {
            if let bytes = ByteSize.parse(given), Self.memoryBytes.contains(bytes) {
                memoryBytes = bytes
            } else {
                reader.report("memory", "\(given.quoted) is no size from 32M to 1024G", "write a number with K, M or G, such as 256M")
            }
        }
        let path = reader.entry("stats-socket")?.value ?? "/run/apus/\(name).sock"
        statsSocket = reader.checkedSocketPath(path, "stats-socket") ?? ""
        lcores = Self.lcores(reading: &reader, availableCPUs: availableCPUs)
    }

    private static func lcores(reading reader: inout SectionReader, availableCPUs: Set<Int>) -> [Int] {
        guard reader.require("lcores", "name the CPU that polls, such as 'lcores = 1'") != nil,
              let lcores = reader.cpus("lcores") else { return [] }
        let missing = lcores.filter { !availableCPUs.contains($0) }
        if !missing.isEmpty {
            reader.report("lcores", "CPU \(CPUList.text(missing)) is not available to this process",
                          "available: \(CPUList.text(availableCPUs))")
        }
        return lcores
    }
}
