"""RFC 1071, a byte at a time, and what it says about a frame. Slow and obvious on purpose."""

import struct

from lab import wire


def ones_sum(data: bytes) -> int:
    """The folded 16-bit one's complement sum; an odd last byte is the high half of a word."""
    total = (sum(data[0::2]) << 8) + sum(data[1::2])
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def finish(total: int) -> int:
    return ~total & 0xFFFF


def pseudo_header(packet: wire.Packet) -> bytes:
    """RFC 9293 section 3.1 and RFC 8200 section 8.1; the length is that of the L4 header and payload."""
    addresses = packet.source + packet.destination
    if packet.version == 4:
        return addresses + struct.pack("!BBH", 0, packet.protocol, packet.l4_length)
    return addresses + struct.pack("!IHBB", packet.l4_length, 0, 0, packet.protocol)


def complete(frame: bytes, start: int, offset: int) -> bytes:
    """What a device does that got NEEDS_CSUM, literally: sum from `start` to the end, store at `start + offset`.

    The field itself is part of the sum: it holds the seed. No header is looked at; a sum of 0 is stored as 0xffff,
    which UDP needs, TCP tolerates, and Linux does to both (skb_checksum_help).
    """
    wire.need(frame, start + offset + 2)
    value = finish(ones_sum(frame[start:])) or 0xFFFF
    return frame[:start + offset] + value.to_bytes(2, "big") + frame[start + offset + 2:]


def zero_as_zero(frame: bytes) -> bytes:
    """A TCP checksum of 0xffff as 0x0000, the same number: Linux sends the one, tshark calls it bad (RFC 1624)."""
    packet = wire.parse(frame)
    field = packet.l4 + 16
    if packet.protocol != wire.TCP or frame[field:field + 2] != b"\xff\xff":
        return frame
    return frame[:field] + b"\0\0" + frame[field + 2:]


def problems(frame: bytes) -> list[str]:
    """What is wrong with the checksums of a finished frame. Superframes count as one large packet."""
    try:
        packet = wire.parse(frame)
    except wire.Malformed as error:
        return [f"malformed: {error}"]
    if packet is None:
        return []
    found = []
    if packet.version == 4 and (total := ones_sum(frame[packet.l3:packet.l3 + (frame[packet.l3] & 15) * 4])) != 0xFFFF:
        found.append(f"IPv4 header sums to {total:04x}: {packet.describe(frame)}")
    if not packet.has_l4:
        return found
    field = packet.l4 + packet.checksum_offset
    if packet.protocol == wire.UDP and frame[field:field + 2] == b"\0\0":
        return found + [f"UDP without checksum, which no sender here leaves out: {packet.describe(frame)}"]
    total = ones_sum(pseudo_header(packet) + frame[packet.l4:packet.l4 + packet.l4_length])
    if total != 0xFFFF:
        found.append(f"L4 sums to {total:04x}, field {frame[field:field + 2].hex()}: {packet.describe(frame)}")
    return found
