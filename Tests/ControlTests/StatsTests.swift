import Foundation
import Testing

@testable import Control

@Suite struct StatsTests {
    /// design.md section 4, word for word.
    static let documented = """
        {"ports":{"vm0":{"index":65536,"rx_packets":0,"rx_bytes":0,"tx_packets":0,"tx_bytes":0,"rx_superframes":0,"tx_superframes":0,"drops":{"REASON":0}}},
         "checksum":{"rx":{"none":0,"bad":0,"unnecessary":0,"partial":0},
                     "tx":{"none":0,"bad":0,"unnecessary":0,"partial":0},
                     "software_full":{"xdp_write":0,"xdp_read":0,"egress":0,"segment":0,"verify":0,"driver":0,"mode":0},
                     "software_full_bytes":0,"difference":0,"reseeded":0,"ip_header":0,"malformed":0},
         "xdp":{"firewall":{"packets":0,"written":0,"looked":0,"aborted":0,"drop":0,"pass":0,"tx":0,"redirect":0,"cycles":0}},
         "lcores":{"1":{"polls":0,"busy_polls":0,"packets":0,"cycles_busy":0,"cycles_total":0}}}
        """

    private var zero: StatsDocument {
        var port = PortStats()
        port.index = 65536
        port.drops = ["REASON": 0]
        return StatsDocument(ports: ["vm0": port], xdp: ["firewall": ProgramStats()], lcores: [1: LcoreStats()])
    }

    @Test func namesAreThoseOfTheDesign() throws {
        let documented = try #require(JSONSerialization.jsonObject(with: Data(Self.documented.utf8)) as? NSDictionary)
        let written = try #require(JSONSerialization.jsonObject(with: zero.json) as? NSDictionary)
        #expect(written == documented)
        #expect(try JSONDecoder().decode(StatsDocument.self, from: Data(Self.documented.utf8)) == zero)
    }

    @Test func theReplyIsOneLineWithSortedKeys() {
        let text = String(decoding: zero.json, as: UTF8.self)
        #expect(text.hasPrefix(#"{"checksum":{"difference":0,"ip_header":0,"malformed":0,"reseeded":0,"rx":{"bad":0,"#))
        #expect(!text.contains("\n"))
    }

    /// Each property under its own name: with all of them zero, two swapped names would not be seen.
    @Test func everyCounterStandsUnderItsName() throws {
        var checksum = ChecksumStats()
        (checksum.softwareFull.xdpWrite, checksum.softwareFull.xdpRead, checksum.softwareFull.egress) = (1, 2, 3)
        (checksum.softwareFull.segment, checksum.softwareFull.verify, checksum.softwareFull.driver, checksum.softwareFull.mode) = (4, 5, 6, 7)
        (checksum.softwareFullBytes, checksum.difference, checksum.reseeded, checksum.ipHeader, checksum.malformed) = (8, 9, 10, 11, 12)
        (checksum.rx.none, checksum.rx.bad, checksum.tx.unnecessary, checksum.tx.partial) = (13, 14, 15, .max)
        #expect(String(decoding: StatsDocument(checksum: checksum).json, as: UTF8.self) == """
            {"checksum":{"difference":9,"ip_header":11,"malformed":12,"reseeded":10,"rx":{"bad":14,"none":13,"partial":0,"unnecessary":0},\
            "software_full":{"driver":6,"egress":3,"mode":7,"segment":4,"verify":5,"xdp_read":2,"xdp_write":1},"software_full_bytes":8,\
            "tx":{"bad":0,"none":0,"partial":18446744073709551615,"unnecessary":15}},"lcores":{},"ports":{},"xdp":{}}
            """)
        var port = PortStats()
        (port.rxPackets, port.rxBytes, port.txPackets, port.txBytes, port.rxSuperframes, port.txSuperframes) = (1, 2, 3, 4, 5, 6)
        var lcore = LcoreStats()
        (lcore.polls, lcore.busyPolls, lcore.packets, lcore.cyclesBusy, lcore.cyclesTotal) = (1, 2, 3, 4, 5)
        let text = String(decoding: StatsDocument(ports: ["p": port], lcores: [12: lcore]).json, as: UTF8.self)
        #expect(text.contains("""
            "lcores":{"12":{"busy_polls":2,"cycles_busy":4,"cycles_total":5,"packets":3,"polls":1}},\
            "ports":{"p":{"drops":{},"index":0,"rx_bytes":2,"rx_packets":1,"rx_superframes":5,"tx_bytes":4,"tx_packets":3,"tx_superframes":6}}
            """))
    }

    @Test func theTableShowsWhatThereIs() {
        var stats = zero
        stats.ports["vm0"]!.rxPackets = 1234
        stats.ports["vm0"]!.drops = ["no_route": 5, "never": 0]
        stats.checksum.softwareFull.egress = 3
        stats.lcores[1]!.cyclesTotal = 1000
        stats.lcores[1]!.cyclesBusy = 255
        let lines = StatsTable.totals(stats).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        #expect(lines.contains("port  index  rx packets  rx bytes  rx super  tx packets  tx bytes  tx super  drops"))
        #expect(lines.contains("vm0   65536        1234         0         0           0         0         0      5"))
        #expect(lines.contains("1          0           0        0  25.5 %"))
        #expect(lines.contains("vm0       no_route        5"))
        #expect(!lines.contains { $0.contains("never") })
    }

    @Test func ratesAreDifferencesASecond() {
        var new = zero
        new.ports["vm0"]!.rxPackets = 3_000_000
        new.ports["vm0"]!.rxBytes = 250
        let text = StatsTable.rates(from: zero, to: new, elapsedSeconds: 2)
        #expect(text.contains("vm0      1.5 M     1.0 k       0.0       0.0     0.0\n"))
        // Restarted in between: no difference rather than a trap.
        #expect(StatsTable.rates(from: new, to: zero, elapsedSeconds: 0).contains("0.0"))
    }

    @Test func theLargestNumbersDoNotTrap() {
        var stats = zero
        stats.ports["vm0"]!.drops = ["a": .max, "b": .max]
        stats.ports["vm0"]!.rxBytes = .max
        (stats.checksum.softwareFull.egress, stats.checksum.softwareFull.mode) = (.max, .max)
        #expect(!StatsTable.totals(stats).isEmpty)
        #expect(!StatsTable.rates(from: zero, to: stats, elapsedSeconds: 0).isEmpty)
    }
}
