"""Packets whose checksum the sender has finished: nobody vouches for them, and nobody makes them better.

Good ones arrive good without a sum being computed; damaged ones arrive damaged, in every mode.
"""

import itertools
import socket

import pytest

from lab import checksum, oracle, packets, session, wire
from lab.bench import RIGHT, VIRTUAL, Bench, Case
from test_tcp_matrix import MODES

# nat_wrong leaves a finished packet wrong, which is its right.
CASES = [Case("none")] + [Case(program, mode) for program in ("count", "macswap", "nat") for mode in MODES]
BULK_BYTES = 2 << 20
DAMAGED = 20
FICTIVE_MAC = bytes.fromhex("0200000000ff")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_finished_packets_stay_as_they_are(case):
    with Bench(case) as bench:
        for namespace, device in bench.devices.values():
            namespace.offloads(device, tx=False, tso=False, gso=False)
        session.exercise(bench, BULK_BYTES)
        verdict = oracle.judge(bench, frame_count_min=500)
    for seen in verdict.departures + verdict.arrivals:
        assert seen.partial == 0 and seen.superframes == 0
    assert oracle.full_checksums(verdict.stats) == 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_damage_is_not_hidden(case):
    with Bench(case) as bench:
        namespace, device = bench.devices["a"]
        with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            for frame in itertools.islice(damaged(case), DAMAGED):
                sender.sendto(frame, (device, 0x0800))
        stats = bench.daemon.settled_stats()
        [_, arrived] = [oracle.examine(capture.frames()) for capture in bench.arrivals]
        refused = bench.right.counters()
    assert len(arrived.findings) == len(arrived.finished) == DAMAGED and arrived.partial == 0
    assert (refused["TcpInCsumErrors"], refused["UdpInCsumErrors"]) == (DAMAGED // 2, DAMAGED // 2)
    assert oracle.full_checksums(stats) == 0


def damaged(case: Case):
    """Finished TCP and UDP packets of odd and even lengths, one bit of each flipped."""
    address, port = (VIRTUAL, 8081) if case.nat else (RIGHT, 5202)
    for number in itertools.count():
        protocol, l4 = ((wire.TCP, packets.tcp), (wire.UDP, packets.udp))[number % 2]
        frame, packet = packets.seeded(packets.ipv4(protocol, l4(bytes(range(30 + number)), port), destination=address))
        frame = checksum.complete(frame, packet.l4, packet.checksum_offset)
        if case.program == "macswap":
            frame = FICTIVE_MAC + frame[6:]  # see bench.py
        yield frame[:-1] + bytes([frame[-1] ^ 0x10])
