#!/usr/bin/python3
"""A wire between two taps in plain Python that answers like the forwarder: what the oracle itself is tested against.

`standin.py FILE` takes a configuration as `apus` does, of which it honours the taps, their namespaces and the socket.
STANDIN_PLANT names one fault that it then makes in every frame of TCP or UDP it can be made in.
"""

import configparser
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 2, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 1, 2
_HEADER = struct.Struct("=BBHHHH")
_CHECKSUM_STATES = ("none", "bad", "unnecessary", "partial")
_CAUSES = ("xdp_write", "xdp_read", "egress", "segment", "verify", "driver", "mode")


class Port:
    def __init__(self, interface: str, netns: str):
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", interface.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(self.fd, _TUNSETIFF, request)
        fcntl.ioctl(self.fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
        subprocess.run(["ip", "link", "set", interface, "netns", netns], check=True)
        self.counters = dict.fromkeys(("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "rx_superframes",
                                       "tx_superframes"), 0) | {"index": 0, "drops": {"write": 0}}
        self.states = {way: dict.fromkeys(_CHECKSUM_STATES, 0) for way in ("rx", "tx")}

    def count(self, way: str, message: bytes):
        self.counters[f"{way}_packets"] += 1
        self.counters[f"{way}_bytes"] += len(message) - _HEADER.size
        self.counters[f"{way}_superframes"] += message[1] != 0
        self.states[way]["partial" if message[0] & 1 else "none"] += 1


# Faults. Each takes and returns the words of the virtio-net header and the frame.

def wrong_seed(words, frame):
    flags, *_, start, offset = words
    if not flags & 1:
        return words, frame
    field = start + offset
    seed = (int.from_bytes(frame[field:field + 2], "big") + 1) & 0xFFFF
    return words, frame[:field] + seed.to_bytes(2, "big") + frame[field + 2:]


def wrong_start(words, frame):
    flags, kind, header, size, start, offset = words
    return ((flags, kind, header, size, start - 2, offset + 2) if flags & 1 else words), frame


def corrupted_payload(words, frame):
    """The last byte of a finished packet: only a finished checksum can tell, so the packet is finished first."""
    flags, kind, _, _, start, offset = words
    if not flags & 1 or kind:
        return words, frame
    from lab import checksum
    frame = checksum.complete(frame, start, offset)
    return (0, 0, 0, 0, 0, 0), frame[:-1] + bytes([frame[-1] ^ 1])


def unfinished(words, frame):
    """The commonest bug of all: the mark is lost, the seed stays."""
    return ((0, 0, 0, 0, 0, 0) if not words[1] else words), frame


def lost_gso(words, frame):
    flags, _, _, _, start, offset = words
    return (flags, 0, 0, 0, start, offset), frame


def lost_frame(words, frame):
    """Every 50th frame vanishes without a drop being counted."""
    lost_frame.count = getattr(lost_frame, "count", 0) + 1
    return words, frame if lost_frame.count % 50 else b""


def main(path: str):
    configuration = configparser.ConfigParser()
    configuration.read(path)
    ports = {title.split()[1]: Port(section["interface"], section["netns"])
             for title, section in configuration.items() if title.startswith("port ")}
    first, second = ports.values()
    peer = {first.fd: (first, second), second.fd: (second, first)}
    plant = globals()[os.environ["STANDIN_PLANT"].replace("-", "_")] if "STANDIN_PLANT" in os.environ else None
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(configuration["apus"]["stats-socket"])
    listener.listen()
    signal.signal(signal.SIGTERM, lambda *_: (os.unlink(configuration["apus"]["stats-socket"]), os._exit(0)))
    while True:
        for ready in select.select([*peer, listener], [], [])[0]:
            if ready is listener:
                answer(listener.accept()[0], ports)
            else:
                forward(*peer[ready], plant)


def forward(source: Port, destination: Port, plant):
    try:
        message = os.read(source.fd, 1 << 17)
    except BlockingIOError:
        return
    source.count("rx", message)
    frame = message[_HEADER.size:]
    if plant and frame[12:14] == b"\x08\x00":
        words, frame = plant(_HEADER.unpack_from(message), frame)
        if not frame:
            return
        message = _HEADER.pack(*words) + frame
    try:
        os.write(destination.fd, message)
        destination.count("tx", message)
    except OSError:
        destination.counters["drops"]["write"] += 1


def answer(client: socket.socket, ports: dict[str, Port]):
    with client:
        client.recv(64)
        states = {way: {state: sum(port.states[way][state] for port in ports.values()) for state in _CHECKSUM_STATES}
                  for way in ("rx", "tx")}
        client.sendall(json.dumps({
            "ports": {label: port.counters for label, port in ports.items()},
            "checksum": states | {"software_full": dict.fromkeys(_CAUSES, 0)}}).encode() + b"\n")


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    main(sys.argv[1])
