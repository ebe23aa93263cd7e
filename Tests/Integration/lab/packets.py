"""Frames built by hand, from 10.0.0.1 to 10.0.0.2; L4 checksums 0 until `seeded`."""

import socket
import struct

from lab import checksum, wire

_ETHERNET = bytes.fromhex("020000000002020000000001")


def ipv4(protocol: int, l4: bytes, options: bytes = b"", destination: str = "10.0.0.2") -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(l4), 1, 0x4000, 64,
                         protocol, 0, socket.inet_aton("10.0.0.1"), socket.inet_aton(destination)) + options
    total = checksum.finish(checksum.ones_sum(header))
    return _ETHERNET + b"\x08\x00" + header[:10] + struct.pack("!H", total) + header[12:] + l4


def ipv6(protocol: int, l4: bytes) -> bytes:
    addresses = bytes(15) + b"\1" + bytes(15) + b"\2"
    return _ETHERNET + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(l4), protocol, 64) + addresses + l4


def tcp(payload: bytes, port: int = 2) -> bytes:
    return struct.pack("!HHIIBBHHH", 1, port, 3, 4, 0x50, 0x10, 500, 0, 0) + payload


def udp(payload: bytes, port: int = 2) -> bytes:
    return struct.pack("!HHHH", 1, port, 8 + len(payload), 0) + payload


def seeded(frame: bytes) -> tuple[bytes, wire.Packet]:
    """With the pseudo-header sum in the field, as a sender leaves it that hands the rest to a device."""
    packet = wire.parse(frame)
    field = packet.l4 + packet.checksum_offset
    seed = checksum.ones_sum(checksum.pseudo_header(packet))
    return frame[:field] + struct.pack("!H", seed) + frame[field + 2:], packet
