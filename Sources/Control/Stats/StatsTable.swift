/// A stats document for people: what the counters say, and nothing that is zero for want of a subject.
public enum StatsTable {
    /// Totals since the daemon started.
    public static func totals(_ stats: StatsDocument) -> String {
        var blocks = [ports(stats), checksum(stats.checksum)]
        if !stats.xdp.isEmpty { blocks.append(programs(stats)) }
        blocks.append(lcores(stats))
        let drops = drops(stats)
        if !drops.isEmpty { blocks.append(drops) }
        return blocks.joined(separator: "\n")
    }

    /// What happened between two documents, a second.
    public static func rates(from old: StatsDocument, to new: StatsDocument, elapsedSeconds: Double) -> String {
        // A daemon that was restarted in between counts from zero again.
        func rate(_ old: UInt64, _ new: UInt64) -> Double { new >= old ? Double(new - old) / max(elapsedSeconds, 1e-9) : 0 }
        let rows = new.ports.sorted { $0.key < $1.key }.map { name, port in
            let before = old.ports[name] ?? PortStats()
            return [name, scaled(rate(before.rxPackets, port.rxPackets)), scaled(rate(before.rxBytes, port.rxBytes) * 8),
                    scaled(rate(before.txPackets, port.txPackets)), scaled(rate(before.txBytes, port.txBytes) * 8),
                    scaled(rate(dropCount(before), dropCount(port)))]
        }
        let lcores = new.lcores.sorted { $0.key < $1.key }.map { cpu, lcore in
            let before = old.lcores[cpu] ?? LcoreStats()
            let total = rate(before.cyclesTotal, lcore.cyclesTotal)
            let busy = total > 0 ? rate(before.cyclesBusy, lcore.cyclesBusy) / total : 0
            return ["\(cpu)", scaled(rate(before.packets, lcore.packets)), percent(busy)]
        }
        return table(["port", "rx pkt/s", "rx bit/s", "tx pkt/s", "tx bit/s", "drop/s"], rows) + "\n"
            + table(["lcore", "pkt/s", "busy"], lcores)
    }

    private static func ports(_ stats: StatsDocument) -> String {
        table(["port", "index", "rx packets", "rx bytes", "rx super", "tx packets", "tx bytes", "tx super", "drops"],
              stats.ports.sorted { $0.key < $1.key }.map { name, port in
                  [name, "\(port.index)", "\(port.rxPackets)", "\(port.rxBytes)", "\(port.rxSuperframes)",
                   "\(port.txPackets)", "\(port.txBytes)", "\(port.txSuperframes)", "\(dropCount(port))"]
              })
    }

    private static func checksum(_ stats: ChecksumStats) -> String {
        func row(_ name: String, _ states: ChecksumStats.States) -> [String] {
            [name, "\(states.partial)", "\(states.unnecessary)", "\(states.none)", "\(states.bad)"]
        }
        let full = stats.softwareFull
        let causes = [("xdp_write", full.xdpWrite), ("xdp_read", full.xdpRead), ("egress", full.egress), ("segment", full.segment),
                      ("verify", full.verify), ("driver", full.driver), ("mode", full.mode)]
        // A corrupted or foreign document may hold any number: the sum must not trap.
        let total = causes.reduce(0) { $0 &+ $1.1 }
        return table(["checksum", "partial", "unnecessary", "none", "bad"], [row("received", stats.rx), row("sent", stats.tx)]) + "\n"
            + table(["full sums in software", "total", "bytes"] + causes.map(\.0),
                    [["", "\(total)", "\(stats.softwareFullBytes)"] + causes.map { "\($0.1)" }]) + "\n"
            + table(["cheaper repairs", "difference", "reseeded", "ip_header", "malformed"],
                    [["", "\(stats.difference)", "\(stats.reseeded)", "\(stats.ipHeader)", "\(stats.malformed)"]])
    }

    private static func programs(_ stats: StatsDocument) -> String {
        table(["xdp", "packets", "pass", "drop", "tx", "redirect", "aborted", "written", "looked", "cycles/pkt"],
              stats.xdp.sorted { $0.key < $1.key }.map { name, xdp in
                  [name, "\(xdp.packets)", "\(xdp.pass)", "\(xdp.drop)", "\(xdp.tx)", "\(xdp.redirect)", "\(xdp.aborted)",
                   "\(xdp.written)", "\(xdp.looked)", xdp.packets == 0 ? "-" : "\(xdp.cycles / xdp.packets)"]
              })
    }

    private static func lcores(_ stats: StatsDocument) -> String {
        table(["lcore", "polls", "busy polls", "packets", "busy"],
              stats.lcores.sorted { $0.key < $1.key }.map { cpu, lcore in
                  ["\(cpu)", "\(lcore.polls)", "\(lcore.busyPolls)", "\(lcore.packets)",
                   lcore.cyclesTotal == 0 ? "-" : percent(Double(lcore.cyclesBusy) / Double(lcore.cyclesTotal))]
              })
    }

    private static func drops(_ stats: StatsDocument) -> String {
        let rows = stats.ports.sorted { $0.key < $1.key }.flatMap { name, port in
            port.drops.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { [name, $0.key, "\($0.value)"] }
        }
        return rows.isEmpty ? "" : table(["drops at", "reason", "packets"], rows)
    }

    private static func dropCount(_ port: PortStats) -> UInt64 { port.drops.values.reduce(0, &+) }

    private static func percent(_ fraction: Double) -> String { "\(decimal(fraction * 100)) %" }

    /// Three or four digits and a unit: 941.5 M.
    static func scaled(_ value: Double) -> String {
        for (unit, size) in [(" G", 1e9), (" M", 1e6), (" k", 1e3)] where value >= size { return decimal(value / size) + unit }
        return decimal(value)
    }

    private static func decimal(_ value: Double) -> String {
        // At most 2^64 bytes times 8 in a nanosecond, so far below what Double keeps finite; but cut to what Int holds.
        let tenths = Int(min(max(value * 10, 0), 1e18).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }

    /// Left-aligned first column, the rest to the right.
    static func table(_ head: [String], _ rows: [[String]]) -> String {
        let widths = head.indices.map { column in ([head] + rows).map { $0[column].count }.max() ?? 0 }
        return ([head] + rows).map { row in
            var line = zip(row, widths).enumerated().map { column, cell in
                let padding = String(repeating: " ", count: cell.1 - cell.0.count)
                return column == 0 ? cell.0 + padding : padding + cell.0
            }.joined(separator: "  ")
            while line.last == " " { line.removeLast() }
            return line + "\n"
        }.joined()
    }
}
