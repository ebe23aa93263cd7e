#if APUS_PLANTED
import Testing
import Wire

extension DPDKSuites {
    /// One bug a rule, and the groups of the matrix that find it; the first that does ends the run.
    ///
    /// | bug | what it breaks | found by |
    /// | --- | --- | --- |
    /// | headerDestination | the seed names the IPv6 header's destination while segments are left | leaving, arrivals, vhost |
    /// | unknownRouting, homeAddress, sourceRoute, authentication | the pseudo-header is taken for certain | arrivals, rx-checksum |
    /// | udpLength | UDP's own length does not count where it is below IP's | edges |
    /// | trailingBytes | bytes behind the datagram are summed, and left to the receiver | leaving |
    /// | extensionsUnasked | partial behind extension headers toward a device that seeds anew | leaving |
    /// | fragmentCompletion | a fragment stays marked partial | arrivals by tap |
    /// | sctpSum | SCTP marked partial gets a 16-bit sum | leaving, arrivals |
    /// | sctpRewrite | a CRC is not renewed after a write | writing |
    /// | icmp6PseudoHeader | ICMPv6 is summed without its pseudo-header | rx-checksum |
    /// | zeroIsZero | a computed zero is sent as zero | edges |
    /// | inferAny | any field is taken for a seed | rx-checksum |
    /// | verifyTrusts | a wrong checksum verifies | rx-checksum |
    /// | longFrame, longSegments | the leaving port's MTU does not count | MTU |
    /// | untrustedCut | an untrusted superframe leaves | superframes |
    /// | opaqueUnasked | opaque toward a port that has no words for it | leaving |
    /// | sharedHeaders | header bytes are written that others hold | leaving |
    /// | reseedWithoutChecksum | UDP without a checksum is given one | edges |
    /// | fragmentKnown | a fragment's checksum counts as verified | arrivals by tap |
    /// | enclosingChecksum | the enclosing UDP checksum is left alone | writing |
    /// | tagMoves | pushing or popping a tag leaves `start` behind | writing |
    /// | oddSplit | a segment that begins at an odd place is summed as at an even one | leaving, superframes |
    /// | opaqueEnd | an opaque checksum ends with its datagram | leaving |
    /// | vhostSeed | superframes go to vhost in one piece | vhost |
    /// | udpFragmentsAsDatagrams | UFO is sent as USO | superframes |
    /// | checksumPlace | `csum_start` and `csum_offset` past the end are believed | bad packets |
    /// | segmentCount | a superframe may become any number of segments | bad packets, arrivals by tap |
    /// | mergedUntrusted | a superframe that nobody verified is taken from a NIC | arriving from devices |
    /// | bothBitsOfDevices | both bits mean "unfinished" from any driver | arriving from devices |
    /// | goodWithoutChecksum | UDP without a checksum counts as verified | arriving with flags |
    /// | deliverFull | `deliver = full` is ignored | leaving |
    /// | reseedShared | a verified packet is seeded though others hold its bytes | leaving |
    /// | sequenceStays, lastFlags, congestionBit | TCP's fields are copied to each segment | superframes |
    /// | superframeLength | a superframe's seed keeps the length its sender left out | arrivals by tap |
    /// | lookLeavesShadow | the old bytes keep the seed where a look finished the checksum | ContractPlantedTests |
    /// | opaqueWritten | a program may write to a packet whose checksum covers nobody knows what | ContractPlantedTests |
    @Suite struct PlantedTests {
        @Test(arguments: Planted.allCases.filter { !Planted.ofRuns.contains($0) }) func isFound(_ bug: Planted) {
            Planted.plant(bug)
            defer { Planted.plant(nil) }
            for group in MatrixTests.groups {
                let report = Report()
                group.run(report)
                if let first = report.failures.first {
                    return print("planted \(bug): found by \(group.name), \(report.failures.count) of \(report.cases): \(first)")
                }
            }
            Issue.record("\(bug) is not found")
        }
    }
}
#endif
