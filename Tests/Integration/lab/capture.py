"""Frames as they cross a device, with their virtio-net header: AF_PACKET with PACKET_VNET_HDR.

The socket's receive buffer is the capture: nothing runs beside the traffic, and `frames` reads it out afterwards.
"""

import ctypes
import dataclasses
import socket
import struct

from lab.netns import Namespace
from lab.scope import Scope

NEEDS_CSUM, DATA_VALID = 1, 2  # virtio_net_hdr flags
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_ECN = 0, 1, 3, 4, 0x80

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_VNET_HDR = 263, 6, 15
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_MSG_TRUNC = 0x20
_FRAME_MAX = 1 << 17
_HEADER = struct.Struct("=BBHHHH")


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame and what its virtio-net header says. Sizes and offsets in bytes; `start` from the frame's first byte."""
    data: bytes
    flags: int = 0
    gso_type: int = GSO_NONE
    gso_size: int = 0
    start: int = 0
    offset: int = 0

    @property
    def partial(self) -> bool:
        return bool(self.flags & NEEDS_CSUM)

    @property
    def superframe(self) -> bool:
        return self.gso_type != GSO_NONE


class Capture:
    """What arrives at (or, `outgoing`, leaves) a device inside a namespace, up to `buffer` bytes of socket memory.

    The kernel charges each frame what it occupies: about its length for superframes, 1.5 times that for MTU-sized
    ones, 768 bytes for the smallest.
    """

    def __init__(self, namespace: Namespace, device: str, outgoing: bool = False, buffer: int = 256 << 20,
                 frame_count_max: int = 100_000):
        self.namespace, self.device = namespace, device
        self._outgoing, self._buffer, self._frame_count_max = outgoing, buffer, frame_count_max
        self._scope = Scope()
        self._frames: list[Frame] = []
        self.dropped = 0

    def __enter__(self):
        with self._scope.building():
            # Protocol 0 until every option is set: no frame arrives before.
            self._socket = self.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._scope.callback(self._socket.close)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, self._buffer // 2)  # the kernel doubles it
            self._filter_direction()
            self._socket.setblocking(False)
            self._socket.bind((self.device, _ETH_P_ALL))
        return self

    def __exit__(self, *exception):
        self._scope.close()

    def _filter_direction(self):
        load_type = (0x20, 0, 0, 0xFFFF_F004)  # A = SKF_AD_PKTTYPE
        is_outgoing = (0x15, 0, 1, socket.PACKET_OUTGOING)
        take, leave = (0x06, 0, 0, 0xFFFF_FFFF), (0x06, 0, 0, 0)
        verdicts = (take, leave) if self._outgoing else (leave, take)
        code = b"".join(struct.pack("=HBBI", *word) for word in (load_type, is_outgoing, *verdicts))
        program = ctypes.create_string_buffer(code, len(code))
        sock_fprog = struct.pack("@HP", len(code) // 8, ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, sock_fprog)

    def frames(self) -> list[Frame]:
        """Everything captured so far, oldest first."""
        buffer = memoryview(bytearray(_FRAME_MAX))
        while len(self._frames) < self._frame_count_max:
            try:
                [length, _, flags, _] = self._socket.recvmsg_into([buffer])
            except BlockingIOError:
                break
            if flags & _MSG_TRUNC:
                raise RuntimeError(f"a frame above {_FRAME_MAX} bytes on {self.device}")
            [vnet_flags, gso_type, _, gso_size, start, offset] = _HEADER.unpack_from(buffer)
            data = bytes(buffer[_HEADER.size:length])
            self._frames.append(Frame(data, vnet_flags, gso_type, gso_size, start, offset))
        counted = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # reading resets it
        self.dropped += struct.unpack("=II", counted)[1]
        return self._frames
