"""A second opinion: finished frames written to a file and verified by tshark."""

import pathlib
import struct

from lab import process

_STATUS = {"0": "bad", "1": "good"}
_PROTOCOLS = ("ip", "tcp", "udp")


def write(path: pathlib.Path, frames: list[bytes]):
    """The classic format, Ethernet. Times are only the frames' numbers in microseconds."""
    with open(path, "wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1))
        for number, frame in enumerate(frames):
            file.write(struct.pack("=IIII", number // 1_000_000, number % 1_000_000, len(frame), len(frame)) + frame)


def read(path: pathlib.Path) -> list[bytes]:
    """The frames of a file in the classic format, of this machine's byte order."""
    data, frames = path.read_bytes(), []
    if struct.unpack_from("=I", data)[0] not in (0xA1B2C3D4, 0xA1B23C4D):
        raise ValueError(f"{path} is no pcap file")
    at = 24
    while at < len(data):
        [length] = struct.unpack_from("=I", data, at + 8)
        frames.append(data[at + 16:at + 16 + length])
        at += 16 + length
    return frames


def verdicts(path: pathlib.Path) -> list[dict[str, str]]:
    """What tshark says of each frame: `ip`, `tcp`, `udp` each good, bad, or missing where not verified."""
    options = [f"{protocol}.check_checksum:TRUE" for protocol in _PROTOCOLS]
    options += ["tcp.desegment_tcp_streams:FALSE", "tcp.analyze_sequence_numbers:FALSE", "tcp.track_bytes_in_flight:FALSE"]
    fields = ["frame.number", *(f"{protocol}.checksum.status" for protocol in _PROTOCOLS)]
    output = process.call("tshark", "-n", "-r", path,
                          *(word for option in options for word in ("-o", option)),
                          "-T", "fields", *(word for field in fields for word in ("-e", field)), timeout=60)
    result = []
    for line in output.splitlines():
        _, *statuses = line.split("\t")
        result.append({protocol: _STATUS[status] for protocol, status in zip(_PROTOCOLS, statuses) if status in _STATUS})
    return result
