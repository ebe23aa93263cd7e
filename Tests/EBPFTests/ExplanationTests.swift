import Testing

@testable import EBPF

/// What a program's author is told.
@Suite struct ExplanationTests {
    static let cases: [(object: String, isFixture: Bool, sentences: [String])] = [
        ("count", false, ["reads only: checksums are never touched"]),
        ("macswap", false, ["rewrites the Ethernet header at macswap.bpf.c:22, macswap.bpf.c:23, which no checksum covers"]),
        ("nat_port", true, ["rewrites the L4 header at nat_port.bpf.c:9, the checksum at nat_port.bpf.c:10, keeps the checksum by difference: no full checksum"]),
        ("verify_drop", true, ["does not write to packets", "compares the TCP checksum at verify_drop.bpf.c:13, and it decides the verdict: partial packets are completed before line 12"]),
        ("second_look", true, ["rewrites the IP header at second_look.bpf.c:8, the L4 header at second_look.bpf.c:9",
                               "compares the UDP checksum at second_look.bpf.c:10, and it decides the verdict: partial packets are completed before line 7"]),
        ("anywhere", true, ["does not write to packets", "reads at anywhere.bpf.c:12 what may be the checksum field in some packets: a partial packet is completed where it is, and stays partial otherwise"]),
        ("router", false, ["rewrites the IP header at router.h:181, router.h:189, router.h:188, the Ethernet header at router.h:191, router.h:192, leaves the checksum to Apus, which mends it by difference"]),
    ]

    @Test(arguments: cases.indices) func sentences(_ index: Int) throws {
        let (object, isFixture, sentences) = ExplanationTests.cases[index]
        let path = isFixture ? try Objects.fixture(object) : try Objects.program(object)
        #expect(try Explanation.of(object: path, program: nil).map(\.sentences) == [sentences])
    }
}
