"""A vhost-user front end with rings in shared memory, to write into them what no driver would.

It speaks the protocol as QEMU does (vhost-user specification, front-end messages) and keeps one device with one pair
of queues: 0 the device fills, 1 it empties. What a test writes is up to the test; `Split` and `Packed` know only where
descriptors lie (virtio 1.2, 2.7 and 2.8).
"""

import array
import mmap
import os
import socket
import struct
import time

VERSION_1, MRG_RXBUF, INDIRECT, PACKED, PROTOCOL_FEATURES = 1 << 32, 1 << 15, 1 << 28, 1 << 34, 1 << 30
CSUM, GUEST_CSUM, HOST_TSO4, GUEST_TSO4 = 1 << 0, 1 << 1, 1 << 11, 1 << 7
NEXT, WRITE, INDIRECT_TABLE = 1, 2, 4
_AVAILABLE, _USED = 1 << 7, 1 << 15

GET_FEATURES, _SET_FEATURES, _SET_OWNER, _SET_MEM_TABLE = 1, 2, 3, 5
_SET_VRING_NUM, _SET_VRING_ADDR, _SET_VRING_BASE, _SET_VRING_KICK, _SET_VRING_CALL = 8, 9, 10, 12, 13
_GET_PROTOCOL_FEATURES, _SET_PROTOCOL_FEATURES, _SET_VRING_ENABLE = 15, 16, 18

MEMORY = 2 << 20
GUEST = 0x1_0000_0000            # where the guest believes its memory is
USER = 0x7000_0000_0000          # where the front end says it has mapped it
SIZE = 256                        # descriptors a ring
_RING_BYTES = 0x4000
DATA = 4 * _RING_BYTES            # offset of what descriptors point at

HEADER = struct.Struct("<BBHHHHH")   # virtio_net_hdr with num_buffers


class Split:
    """Table, available ring and used ring of queue `number`, at fixed places of the memory."""
    kind = 0

    def __init__(self, memory, number):
        self._memory, base = memory, number * _RING_BYTES
        self.table, self.available, self.used = base, base + 0x1000, base + 0x2000
        self._published = 0

    def describe(self, index, address, length, flags=0, next=0):
        struct.pack_into("<QIHH", self._memory, self.table + 16 * (index % SIZE), address & (1 << 64) - 1, length, flags, next)

    def chain(self, parts, first=0):
        """Descriptors from `first` on for (address, length, flags); returns the head."""
        for number, (address, length, flags) in enumerate(parts):
            last = number == len(parts) - 1
            self.describe(first + number, address, length, flags | (0 if last else NEXT), (first + number + 1) % SIZE)
        return first

    def offer(self, *heads):
        for head in heads:
            struct.pack_into("<H", self._memory, self.available + 4 + 2 * (self._published % SIZE), head)
            self._published += 1
        self.publish(self._published)

    def publish(self, index):
        struct.pack_into("<H", self._memory, self.available + 2, index & 0xFFFF)

    @property
    def done(self):
        return struct.unpack_from("<H", self._memory, self.used + 2)[0]

    def areas(self):
        return self.table, self.used, self.available

    def written(self):
        """What the device may write of it."""
        return [(self.used, 6 + 8 * SIZE)]


class Packed:
    """The ring of queue `number`; the event areas stay zero: always notify."""
    kind = PACKED

    def __init__(self, memory, number):
        self._memory, base = memory, number * _RING_BYTES
        self.table, self.driver, self.device = base, base + 0x1000, base + 0x2000
        self._next = 0

    def describe(self, index, address, length, flags=0, id=0):
        wrapped = _AVAILABLE if index // SIZE % 2 == 0 else _USED
        struct.pack_into("<QIHH", self._memory, self.table + 16 * (index % SIZE), address & (1 << 64) - 1, length, id, flags | wrapped)

    def chain(self, parts, first=None):
        """The head becomes available last."""
        first = self._next
        for number, (address, length, flags) in reversed(list(enumerate(parts))):
            last = number == len(parts) - 1
            self.describe(first + number, address, length, flags | (0 if last else NEXT), id=first % SIZE)
        self._next += len(parts)
        return first

    def offer(self, *heads):
        pass

    @property
    def done(self):
        """Heads the device has used since the start, as far as one turn of the ring tells."""
        flags = [struct.unpack_from("<H", self._memory, self.table + 16 * index + 14)[0] for index in range(SIZE)]
        return sum(1 for word in flags if word & _USED and word & _AVAILABLE)

    def areas(self):
        return self.table, self.device, self.driver

    def written(self):
        return [(self.table, 16 * SIZE), (self.device, 4)]


class FrontEnd:
    """Context manager: connected, negotiated, both rings enabled. `receive` is queue 0, `transmit` queue 1."""

    def __init__(self, path, ring=Split, features=MRG_RXBUF | INDIRECT | CSUM | GUEST_CSUM | HOST_TSO4 | GUEST_TSO4, hugepages=False):
        self._path, self._ring, self._features = str(path), ring, features
        self._memory_flags = os.MFD_HUGETLB if hugepages else 0

    def __enter__(self):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(self._path)
        self._memory_fd = os.memfd_create("guest", os.MFD_CLOEXEC | self._memory_flags)
        os.ftruncate(self._memory_fd, MEMORY)
        self.memory = mmap.mmap(self._memory_fd, MEMORY)
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
        self.receive, self.transmit = self._ring(self.memory, 0), self._ring(self.memory, 1)
        try:
            self._negotiate()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        self._socket.close()
        for fd in self.events:
            os.close(fd)
        self.memory.close()
        os.close(self._memory_fd)

    def message(self, request, payload=b"", fds=(), answered=False):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([struct.pack("<III", request, 1, len(payload)) + payload], ancillary)
        if answered:
            _, _, size = struct.unpack("<III", self._read(12))
            return self._read(size)

    def _read(self, count):
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the back end hung up")
            data += part
        return data

    def _negotiate(self):
        self.message(_SET_OWNER)
        [offered] = struct.unpack("<Q", self.message(GET_FEATURES, answered=True))
        self.features = offered & (self._features | VERSION_1 | PROTOCOL_FEATURES | self._ring.kind)
        assert self.features & self._ring.kind == self._ring.kind
        self.message(_GET_PROTOCOL_FEATURES, answered=True)
        self.message(_SET_PROTOCOL_FEATURES, struct.pack("<Q", 0))
        self.message(_SET_FEATURES, struct.pack("<Q", self.features))
        self.share()
        for number, ring in enumerate((self.receive, self.transmit)):
            self.start(number, ring)

    def share(self, regions=((GUEST, MEMORY, USER, 0),)):
        table = struct.pack("<II", len(regions), 0) + b"".join(struct.pack("<QQQQ", *region) for region in regions)
        self.message(_SET_MEM_TABLE, table, [self._memory_fd] * len(regions))

    def start(self, number, ring, size=SIZE, shift=0):
        self.message(_SET_VRING_NUM, struct.pack("<II", number, size))
        # Packed rings: the wrap counter is bit 15 of the base.
        self.message(_SET_VRING_BASE, struct.pack("<II", number, 0x8000_8000 if ring.kind else 0))
        places = [USER + place + shift for place in ring.areas()]
        self.message(_SET_VRING_ADDR, struct.pack("<IIQQQQ", number, 0, *places, 0))
        self.message(_SET_VRING_CALL, struct.pack("<Q", number), [self.events[2 * number]])
        self.message(_SET_VRING_KICK, struct.pack("<Q", number), [self.events[2 * number + 1]])
        self.message(_SET_VRING_ENABLE, struct.pack("<II", number, 1))

    def cut(self, bytes):
        """Takes the memory back, but for its first bytes: whoever touches it then, this process too, gets SIGBUS."""
        os.ftruncate(self._memory_fd, bytes)

    def put(self, data, at=0):
        """Bytes into the data area; gives their guest address."""
        self.memory[DATA + at:DATA + at + len(data)] = data
        return GUEST + DATA + at

    def send(self, frame, header=bytes(12), at=0):
        """A frame as a driver sends it."""
        self.transmit.offer(self.transmit.chain([(self.put(header + frame, at), 12 + len(frame), 0)]))

    def wait(self, ring, count, seconds=5):
        deadline = time.monotonic() + seconds
        while ring.done < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{ring.done} of {count} used")
            time.sleep(0.0005)
