"""The oracle's arithmetic against numbers from elsewhere, and against tshark."""

import random
import struct

import pytest

from lab import checksum, pcap, wire
from lab.packets import ipv4, ipv6, seeded, tcp, udp

def frames_of_all_kinds() -> list[bytes]:
    bodies = [random.Random(length).randbytes(length) for length in (0, 1, 2, 3, 17, 1000, 1447, 1448)]
    bodies.append(random.Random(0).randbytes(60_001))
    frames = []
    for body in bodies:
        frames += [ipv4(wire.TCP, tcp(body)), ipv4(wire.UDP, udp(body)), ipv4(wire.TCP, tcp(body), options=b"\1" * 8),
                   ipv6(wire.TCP, tcp(body)), ipv6(wire.UDP, udp(body))]
        frames.append(frames[-1][:12] + b"\x81\x00\x00\x0a" + frames[-1][12:])
    return frames


def test_rfc_1071_example():
    assert checksum.ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
    assert checksum.ones_sum(bytes.fromhex("0001f203f4f5f6f7ab")) == checksum.ones_sum(bytes.fromhex("ddf2ab00"))
    assert checksum.ones_sum(b"") == 0


def test_completed_frames_are_right_here_and_in_tshark(tmp_path):
    finished = []
    for frame in frames_of_all_kinds():
        frame, packet = seeded(frame)
        assert checksum.problems(frame), "a seed is no checksum"
        finished.append(checksum.complete(frame, packet.l4, packet.checksum_offset))
        assert checksum.problems(finished[-1]) == []
    pcap.write(tmp_path / "good.pcap", [checksum.zero_as_zero(frame) for frame in finished])
    verdicts = pcap.verdicts(tmp_path / "good.pcap")
    assert len(verdicts) == len(finished) and all("good" in verdict.values() for verdict in verdicts)
    assert not any("bad" in verdict.values() for verdict in verdicts)


def test_each_flipped_bit_is_found_here_and_in_tshark(tmp_path):
    frame, packet = seeded(ipv4(wire.TCP, tcp(b"odd")))
    frame = checksum.complete(frame, packet.l4, packet.checksum_offset)
    covered = [*range(packet.l3 + 8, packet.l3 + 9), *range(packet.l3 + 12, packet.l4 + 12), *range(packet.l4 + 13, len(frame))]
    broken = []
    for index in covered:
        for bit in range(8):
            broken.append(frame[:index] + bytes([frame[index] ^ 1 << bit]) + frame[index + 1:])
            assert checksum.problems(broken[-1]), f"byte {index} bit {bit}"
    pcap.write(tmp_path / "bad.pcap", broken)
    assert all("bad" in verdict.values() for verdict in pcap.verdicts(tmp_path / "bad.pcap"))


def test_trailing_bytes_are_not_the_datagram():
    frame, packet = seeded(ipv4(wire.UDP, udp(b"x")))
    frame = checksum.complete(frame, packet.l4, packet.checksum_offset)
    assert checksum.problems(frame + b"\xde\xad") == []
    # ... but a device that is told to sum "to the end" sums them.
    padded, _ = seeded(ipv4(wire.UDP, udp(b"x")))
    assert checksum.problems(checksum.complete(padded + b"\xde\xad", packet.l4, packet.checksum_offset))


def test_zero_is_stored_as_ffff_and_tshark_is_told_0(tmp_path):
    for number in range(1 << 16):
        frame, packet = seeded(ipv4(wire.TCP, tcp(struct.pack("!H", number))))
        frame = checksum.complete(frame, packet.l4, packet.checksum_offset)
        if frame[50:52] == b"\xff\xff":
            break
    assert checksum.problems(frame) == []
    pcap.write(tmp_path / "zero.pcap", [checksum.zero_as_zero(frame)])
    assert pcap.verdicts(tmp_path / "zero.pcap") == [{"ip": "good", "tcp": "good"}]


@pytest.mark.parametrize("length", range(14, 54))
def test_every_truncation_is_malformed(length):
    with pytest.raises(wire.Malformed):
        wire.parse(ipv4(wire.TCP, tcp(b""))[:length])
