"""Parsing of Ethernet, VLAN, IPv4, IPv6, TCP and UDP, for the oracle only: nothing here comes from the forwarder."""

import dataclasses
import socket
import struct

TCP, UDP = 6, 17
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN = (0x8100, 0x88A8)
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60


class Malformed(ValueError):
    pass


@dataclasses.dataclass(frozen=True)
class Packet:
    """Offsets are bytes from the start of the frame. `l4_length` excludes what trails the datagram."""
    version: int
    l3: int
    l4: int
    l4_length: int
    protocol: int
    source: bytes
    destination: bytes
    fragment: bool

    @property
    def checksum_offset(self) -> int:
        """Bytes from the L4 header to its checksum."""
        return {TCP: 16, UDP: 6}[self.protocol]

    @property
    def has_l4(self) -> bool:
        return self.protocol in (TCP, UDP) and not self.fragment

    def ports(self, frame: bytes) -> tuple[int, int]:
        return struct.unpack_from("!HH", frame, self.l4)

    def payload(self, frame: bytes) -> bytes:
        header = 8 if self.protocol == UDP else (frame[self.l4 + 12] >> 4) * 4
        return frame[self.l4 + header:self.l4 + self.l4_length]

    def describe(self, frame: bytes) -> str:
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        ends = [socket.inet_ntop(family, address) for address in (self.source, self.destination)]
        if not self.has_l4:
            return f"{ends[0]} > {ends[1]} protocol {self.protocol}"
        ports = self.ports(frame)
        return f"{'TCP' if self.protocol == TCP else 'UDP'} {ends[0]}:{ports[0]} > {ends[1]}:{ports[1]}"


def parse(frame: bytes) -> Packet | None:
    """None for what is not IP. The IPv6 destination is the header's: these tests send no routing headers."""
    need(frame, 14)
    offset, [ether_type] = 14, struct.unpack_from("!H", frame, 12)
    while ether_type in _VLAN:
        need(frame, offset + 4)
        [ether_type] = struct.unpack_from("!H", frame, offset + 2)
        offset += 4
    if ether_type == _IPV4:
        return _parse_ipv4(frame, offset)
    if ether_type == _IPV6:
        return _parse_ipv6(frame, offset)
    return None


def _parse_ipv4(frame: bytes, l3: int) -> Packet:
    need(frame, l3 + 20)
    header = (frame[l3] & 15) * 4
    if frame[l3] >> 4 != 4 or header < 20:
        raise Malformed(f"IPv4 version and header length {frame[l3]:02x}")
    [total, _, fragment] = struct.unpack_from("!HHH", frame, l3 + 2)
    total = total or len(frame) - l3  # RFC 9293 has no room for more than 64 KB; Linux then writes 0
    need(frame, l3 + total)
    if total < header:
        raise Malformed(f"IPv4 total length {total} below its header {header}")
    return _checked(frame, Packet(4, l3, l3 + header, total - header, frame[l3 + 9], frame[l3 + 12:l3 + 16],
                                  frame[l3 + 16:l3 + 20], bool(fragment & 0x3FFF)))


def _parse_ipv6(frame: bytes, l3: int) -> Packet:
    need(frame, l3 + 40)
    [length] = struct.unpack_from("!H", frame, l3 + 4)
    length = length or len(frame) - l3 - 40
    end, offset, protocol, fragment = l3 + 40 + length, l3 + 40, frame[l3 + 6], False
    need(frame, end)
    while protocol in (_HOP_BY_HOP, _ROUTING, _DESTINATION, _FRAGMENT):
        need(frame, offset + 8)
        fragment |= protocol == _FRAGMENT and struct.unpack_from("!H", frame, offset + 2)[0] & 0xFFF9 != 0
        size = 8 if protocol == _FRAGMENT else (frame[offset + 1] + 1) * 8
        protocol, offset = frame[offset], offset + size
    if offset > end:
        raise Malformed("IPv6 extension headers beyond the packet")
    return _checked(frame, Packet(6, l3, offset, end - offset, protocol, frame[l3 + 8:l3 + 24],
                                  frame[l3 + 24:l3 + 40], fragment))


def _checked(frame: bytes, packet: Packet) -> Packet:
    if packet.has_l4 and packet.l4_length < {TCP: 20, UDP: 8}[packet.protocol]:
        raise Malformed(f"{packet.l4_length} bytes of L4 are no header")
    if packet.has_l4 and packet.protocol == UDP:
        [length] = struct.unpack_from("!H", frame, packet.l4 + 4)
        return dataclasses.replace(packet, l4_length=min(packet.l4_length, length or packet.l4_length))
    return packet


def need(frame: bytes, length: int):
    if len(frame) < length:
        raise Malformed(f"{len(frame)} bytes of frame, {length} needed")
