import Control
import Dataplane
import DPDK
import Foundation

/// Reads the lcores' counters into the stats document. From any thread, at any time: what an lcore received, sent and dropped
/// is of one moment.
struct StatsReporter: Sendable {
    struct Port: Sendable {
        let name: String
        let index: UInt32
    }

    let ports: [Port]
    let programs: [String]
    /// By CPU number.
    let lcores: [Int: CounterBlock]
    let pools: [PoolUse]

    func document() -> StatsDocument {
        var document = StatsDocument(ports: Dictionary(uniqueKeysWithValues: ports.map { port in
            var stats = PortStats()
            stats.index = port.index
            return (port.name, stats)
        }), xdp: Dictionary(uniqueKeysWithValues: programs.map { ($0, ProgramStats()) }))
        for (cpu, block) in lcores {
            block.read { counters in
                for (number, port) in ports.enumerated() { document.ports[port.name]!.add(counters.port(number)) }
                for (number, name) in programs.enumerated() { document.xdp[name]!.add(counters.program(number)) }
                document.checksum.add(counters.checksums)
                document.lcores[cpu] = LcoreStats(counters.lcore)
            }
        }
        document.memory = Dictionary(uniqueKeysWithValues: pools.map { ($0.name, PoolStats(buffers: $0.capacity, used: $0.used)) })
        return document
    }
}

extension PortStats {
    mutating func add(_ counters: PortCounters) {
        rxPackets += counters.value(.receivedPackets)
        rxBytes += counters.value(.receivedBytes)
        txPackets += counters.value(.transmittedPackets)
        txBytes += counters.value(.transmittedBytes)
        rxSuperframes += counters.value(.receivedSuperframes)
        txSuperframes += counters.value(.transmittedSuperframes)
        created = (created ?? 0) + counters.value(.created)
        sharedBursts = (sharedBursts ?? 0) + counters.value(.sharedBursts)
        sharedWaits = (sharedWaits ?? 0) + counters.value(.sharedWaits)
        notLearned = (notLearned ?? 0) + counters.value(.notLearned)
        for reason in DropReason.allCases { drops[reason.name, default: 0] += counters.drops(reason) }
    }
}

extension ChecksumStats {
    mutating func add(_ counters: ChecksumCounters) {
        rx.none += counters.received(.none)
        rx.bad += counters.received(.bad)
        rx.unnecessary += counters.received(.unnecessary)
        rx.partial += counters.received(.partial)
        tx.none += counters.transmitted(.none)
        tx.bad += counters.transmitted(.bad)
        tx.unnecessary += counters.transmitted(.unnecessary)
        tx.partial += counters.transmitted(.partial)
        softwareFull.xdpWrite += counters.full(.xdpWrite)
        softwareFull.xdpRead += counters.full(.xdpRead)
        softwareFull.egress += counters.full(.egress)
        softwareFull.segment += counters.full(.segment)
        softwareFull.verify += counters.full(.verify)
        softwareFull.driver += counters.full(.driver)
        softwareFull.mode += counters.full(.mode)
        softwareFullBytes += counters.value(.softwareFullBytes)
        difference += counters.value(.difference)
        reseeded += counters.value(.reseeded)
        ipHeader += counters.value(.ipHeader)
        malformed += counters.value(.malformed)
    }
}

extension ProgramStats {
    mutating func add(_ counters: ProgramCounters) {
        packets += counters.value(.packets)
        written += counters.value(.written)
        looked += counters.value(.looked)
        aborted += counters.value(.aborted)
        drop += counters.value(.drop)
        pass += counters.value(.pass)
        tx += counters.value(.tx)
        redirect += counters.value(.redirect)
        cycles += counters.value(.cycles)
    }
}

extension LcoreStats {
    init(_ counters: LcoreCounters) {
        self.init()
        polls = counters.value(.polls)
        busyPolls = counters.value(.busyPolls)
        packets = counters.value(.packets)
        cyclesBusy = counters.value(.cyclesBusy)
        cyclesTotal = counters.value(.cyclesTotal)
        emptyLooks = counters.value(.emptyLooks)
        cyclesEmptyLooks = counters.value(.cyclesEmptyLooks)
    }
}
