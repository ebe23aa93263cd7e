"""A vhost-user peer whose rings hold what no driver would write: the forwarder lives, and loses and invents nothing.

What it lets through is compared byte by byte; what it may not write to has a pattern; the next peer on the same socket
finds a port that works; at the end every packet buffer is back (the daemon's exit status).
"""

import itertools
import random
import struct
import time

import pytest

from lab import pcap
from lab.hostile import HEADER_BYTES, RINGS, Lab, follow, frame, to_a_file
from lab.vhost import DATA, GUEST, HEADER, INDIRECT_TABLE, MEMORY, MRG_RXBUF, NEXT, SIZE, WRITE, FrontEnd, Split

SPACE = 512   # of a frame that is read while it changes: enough to be read ahead


def from_a_generator(lab):
    return {"port o": {"driver": "vdev", "devargs": "net_null_o,size=200"}}


# What a guest sends. Each writes a ring and gives the frames that may come out, or None where nobody can say.

def one(front, address, length, flags=0):
    front.transmit.offer(front.transmit.chain([(address, length, flags)]))


def table(front, parts, length=None, at=0x40000):
    """An indirect table at `at`, offered."""
    raw = b"".join(struct.pack("<QIHH", address & (1 << 64) - 1, size, *((flags, next) if front.transmit.kind == 0 else (next, flags)))
                   for address, size, flags, next in parts)
    one(front, front.put(raw, at), len(raw) if length is None else length, INDIRECT_TABLE)


def good(front):
    return front.put(bytes(HEADER_BYTES) + frame(1)), HEADER_BYTES + len(frame(1))


def addresses():
    end = GUEST + MEMORY
    return {"address 0": 0, "before the memory": GUEST - 64, "behind the memory": end, "in the middle of nowhere": 0xDEAD_BEEF_000,
            "at the end of addresses": 2**64 - 16, "wrapping": 2**64 - 1}


SENDS = {f"unmapped: {name}": (lambda front, at=at: one(front, at, 200)) for name, at in addresses().items()}
SENDS |= {f"a length of {length} from {back} before the end": (lambda front, length=length, back=back: one(front, GUEST + MEMORY - back, length))
          for length, back in itertools.product((65, 4096, 65535, 2**31, 2**32 - 1), (1, 64))}
SENDS |= {f"{length} bytes, of which {HEADER_BYTES} are header": (lambda front, length=length: one(front, front.put(bytes(64)), length))
          for length in (0, 1, 11, 12, 13, 25)}
SENDS |= {
    "a length past everything": lambda front: one(front, good(front)[0], 2**32 - 1),
    "the second descriptor unmapped": lambda front: front.transmit.offer(front.transmit.chain([(*good(front), 0), (0, 100, 0)])),
    "the second descriptor past the end": lambda front: front.transmit.offer(front.transmit.chain([(*good(front), 0), (GUEST + MEMORY - 8, 100, 0)])),
    "descriptors without bytes": lambda front: front.transmit.offer(front.transmit.chain([(good(front)[0], 0, 0)] * 5)),
    "a whole ring without end": lambda front: front.transmit.offer(front.transmit.chain([(*good(front), NEXT)] * SIZE)),
    "a megabyte in one chain": lambda front: front.transmit.offer(front.transmit.chain([(front.put(bytes(4096)), 4096, 0)] * SIZE)),
    "an indirect table of 0 bytes": lambda front: table(front, [(*good(front), 0, 0)], 0),
    "an indirect table of 17 bytes": lambda front: table(front, [(*good(front), NEXT, 1), (*good(front), 0, 0)], 17),
    "an indirect table past the end": lambda front: one(front, GUEST + MEMORY - 16, 64, INDIRECT_TABLE),
    "an unmapped indirect table": lambda front: one(front, 0x1000, 64, INDIRECT_TABLE),
    "an indirect table of 4 GB": lambda front: table(front, [(*good(front), 0, 0)], 2**32 - 16),
    "an indirect table in itself": lambda front: table(front, [(GUEST + DATA + 0x40000, 32, INDIRECT_TABLE, 0), (*good(front), 0, 0)]),
    "an indirect table with an unmapped entry": lambda front: table(front, [(*good(front), NEXT, 1), (64, 64, 0, 0)]),
}
SPLIT_SENDS = {
    "a descriptor that is its own next": lambda front: (front.transmit.describe(0, *good(front), NEXT, 0), front.transmit.offer(0)),
    "a loop of two": lambda front: (front.transmit.describe(0, *good(front), NEXT, 1), front.transmit.describe(1, *good(front), NEXT, 0),
                                    front.transmit.offer(0)),
    "a next out of the table": lambda front: (front.transmit.describe(0, *good(front), NEXT, SIZE), front.transmit.offer(0)),
    "a next far out of the table": lambda front: (front.transmit.describe(0, *good(front), NEXT, 0xFFFF), front.transmit.offer(0)),
    "a head out of the table": lambda front: front.transmit.offer(SIZE),
    "a head far out of the table": lambda front: front.transmit.offer(0xFFFF),
    "an index that jumps": lambda front: front.transmit.publish(SIZE + 1),
    "an index that jumps far": lambda front: front.transmit.publish(0x8001),
    "an indirect loop": lambda front: table(front, [(*good(front), NEXT, 1), (*good(front), NEXT, 0)]),
    "an indirect next out of its table": lambda front: table(front, [(*good(front), NEXT, 9), (*good(front), 0, 0)]),
}


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: ring.__name__.lower())
@pytest.mark.parametrize("times", [1, 8], ids=["one", "eight"])
def test_hostile_descriptors(ring, times):
    """Nothing of them comes out that does not stand in the peer's memory; the next peer's frames do. Eight of a kind,
    since the library takes packed rings by four at once, by other code."""
    cases = SENDS | (SPLIT_SENDS if ring is Split else {})
    memories = []
    with Lab(to_a_file) as lab:
        for number, (name, write) in enumerate(cases.items()):
            with FrontEnd(lab.path, ring) as front:
                for _ in range(times):
                    write(front)
                time.sleep(0.02)
                memories.append(front.memory[DATA:])
            follow(lab, ring, 1000 + number, name)
        ports = lab.settled()
        print(f"{ring.__name__}: {len(cases)} cases; received {ports['h']['rx_packets']}, dropped "
              f"{ {reason: count for port in ports.values() for reason, count in port['drops'].items() if count} }")
        written = pcap.read(lab.written)
    followers = [frame(1000 + number) for number in range(len(cases))]
    assert [data for data in written if data in followers] == followers
    # A chain may join what lies apart, so piece by piece.
    strange = [data[:80] for data in written if data not in followers
               and not all(any(data[at:at + 8] in memory for memory in memories) for at in range(0, len(data), 8))]
    assert not strange, strange


def lies():
    """(header, frame, drop reason, or the bytes that come out). csum_start counts from the frame."""
    data = frame(7)
    whole = data
    for words, answer in [
            ((0, 0, 0, 0, 65535, 65535, 0), whole),                  # without its flag nothing of it counts
            ((0, 0x7F, 65535, 65535, 0, 0, 0), whole),
            ((1, 0, 0, 0, 65535, 0, 0), None), ((1, 0, 0, 0, 0, 65535, 0), None), ((1, 0, 0, 0, len(data) - 1, 0, 0), None),
            ((1, 0, 0, 0, len(data) - 2, 0, 0), None), ((1, 0, 0, 0, 0, 0, 0), None), ((1, 1, 0, 0, 34, 6, 0), None),
            ((1, 1, 0, 1, 34, 16, 0), None), ((0, 1, 0, 1448, 0, 0, 0), None), ((1, 3, 54, 7, 34, 6, 0), None),
            ((1, 4, 0xFFFF, 0xFFFF, 34, 16, 0xFFFF), None), ((2, 0, 0, 0, 0, 0, 0), None), ((0xFF, 0xFF, 0, 0, 14, 2, 0), None)]:
        yield words, data, answer


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: ring.__name__.lower())
def test_hostile_headers(ring):
    """Carried or dropped with a reason: what is received is what is sent and dropped; frames cut short likewise."""
    with Lab(to_a_file) as lab:
        with FrontEnd(lab.path, ring) as front:
            sent, at = 0, 0
            for words, data, _ in lies():
                for length in (len(data), 13, 14, 33, 34, 41, 42):
                    front.transmit.offer(front.transmit.chain([(front.put(HEADER.pack(*words) + data[:length], at), HEADER_BYTES + length, 0)], sent % SIZE))
                    sent, at = sent + 1, at + 256
            deadline = time.monotonic() + 5
            while front.transmit.done < sent:
                assert time.monotonic() < deadline, f"{front.transmit.done} of {sent} used"
                time.sleep(0.002)
            # Before the ring goes: what a poller finds in one that is being taken away is nobody's packet.
            ports = lab.settled()
        assert ports["h"]["rx_packets"] == sent
        print({reason: count for port in ports.values() for reason, count in port["drops"].items() if count})
        written = pcap.read(lab.written)
    for data in [data for _, data, answer in lies() if answer]:
        assert data in written
    # Where a place was given, two bytes may have been completed; nothing else may be there.
    whole = frame(7)
    for data in written:
        assert sum(a != b for a, b in zip(data, whole)) <= 2 and len(data) <= len(whole), data


def test_a_byte_a_descriptor():
    """Any layout is a driver's right (VIRTIO_F_ANY_LAYOUT): a chain of descriptors of one byte is an ordinary frame."""
    with Lab(to_a_file) as lab:
        with FrontEnd(lab.path) as front:
            data = bytes(HEADER_BYTES) + frame(3)
            address = front.put(data)
            front.transmit.offer(front.transmit.chain([(address + at, 1, 0) for at in range(len(data))]))
            front.wait(front.transmit, 1)
        assert lab.settled()["o"]["tx_packets"] == 1
        assert pcap.read(lab.written) == [frame(3)]


# What a guest offers to be filled.

def receives():
    buffer = GUEST + DATA
    yield from ((f"unmapped: {name}", [(at, 2048, WRITE)]) for name, at in addresses().items())
    for length in (0, 1, 11, 12, 13, 100):
        yield f"{length} bytes", [(buffer, length, WRITE)]
    for length in (1, 11, 12):
        yield f"{length} bytes up to the end", [(GUEST + MEMORY - length, length, WRITE)]
    for length in (4096, 65535, 2**32 - 1):
        yield f"{length} bytes at the end", [(GUEST + MEMORY - 64, length, WRITE)]
    yield "not to be written", [(buffer, 2048, 0)]
    yield "the second unmapped", [(buffer, 64, WRITE), (0, 2048, WRITE)]
    yield "without end", [(buffer, 1, WRITE | NEXT)] * SIZE
    yield "an indirect table that is unmapped", [(64, 64, INDIRECT_TABLE)]
    yield "an indirect table past the end", [(GUEST + MEMORY - 16, 4096, INDIRECT_TABLE)]


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: ring.__name__.lower())
@pytest.mark.parametrize("mergeable", [True, False], ids=["mergeable", "plain"])
def test_hostile_buffers(ring, mergeable):
    """Under full load toward the peer: nothing outside the offered buffers is written, and the next peer receives."""
    with Lab(from_a_generator) as lab:
        for name, parts in receives():
            with FrontEnd(lab.path, ring, MRG_RXBUF if mergeable else 0) as front:
                pattern = bytes(range(1, 256)) * (MEMORY // 255)
                front.memory[DATA:] = pattern[:MEMORY - DATA]
                # Eight times: the library takes packed rings by four at once, by other code.
                for number in range(min(8, SIZE // len(parts))):
                    front.receive.offer(front.receive.chain(parts, number * len(parts)) if ring is Split else front.receive.chain(parts))
                time.sleep(0.02)
                check_untouched(front, parts, pattern, name)
            arrives(lab, ring, mergeable, name)
        lab.daemon.stats()


def check_untouched(front, parts, pattern, name):
    allowed = bytearray(MEMORY)
    for address, length, _ in parts:
        start = address - GUEST
        if 0 <= start < MEMORY:
            length = min(length, MEMORY - start)
            allowed[start:start + length] = b"\1" * length
    memory = front.memory[DATA:]
    touched = [at for at in range(len(memory)) if memory[at] != pattern[at] and not allowed[DATA + at]] if memory != pattern[:len(memory)] else []
    assert not touched, f"{name}: {len(touched)} bytes written from {touched[0]:#x} on"


def arrives(lab, ring, mergeable, name):
    with FrontEnd(lab.path, ring, MRG_RXBUF if mergeable else 0) as front:
        front.receive.offer(front.receive.chain([(GUEST + DATA, 2048, WRITE)]))
        deadline = time.monotonic() + 5
        while front.receive.done == 0:
            assert time.monotonic() < deadline, f"after {name}: nothing arrives any more\n{lab.daemon.log()[-3000:]}"
            time.sleep(0.002)


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: ring.__name__.lower())
@pytest.mark.parametrize("sections", [to_a_file, from_a_generator], ids=["sending", "receiving"])
def test_rings_that_change_under_the_reader(ring, sections):
    """A peer that scribbles over descriptors, indices and headers while they are read."""
    chance = random.Random(f"{ring.__name__}{sections.__name__}")
    with Lab(sections) as lab:
        ends = time.monotonic() + 4
        peers = 0
        while time.monotonic() < ends:
            peers += 1
            with FrontEnd(lab.path, ring) as front:
                side = front.transmit if sections is to_a_file else front.receive
                for index in range(SIZE):
                    side.offer(side.chain([(front.put(bytes(12) + frame(index), SPACE * index), SPACE - 12, 0 if sections is to_a_file else WRITE)], index))
                scribbling = time.monotonic() + 0.25
                while time.monotonic() < scribbling:
                    scribble(front, side, chance)
        follow(lab, ring, 1, "scribbling") if sections is to_a_file else arrives(lab, ring, True, "scribbling")
        if sections is to_a_file:
            lab.settled()
        print(f"{peers} peers")


def scribble(front, side, chance):
    memory = front.memory
    what = chance.randrange(4)
    if what == 0:     # a field of a descriptor
        at = side.table + 16 * chance.randrange(SIZE) + chance.choice((0, 4, 6, 8, 10, 12, 14))
        memory[at:at + 2] = chance.choice((b"\0\0", b"\xff\xff", struct.pack("<H", chance.randrange(65536)), struct.pack("<H", chance.randrange(8))))
    elif what == 1:   # an index or an entry
        at = side.areas()[2] + 2 * chance.randrange(SIZE + 2)
        memory[at:at + 2] = struct.pack("<H", chance.choice((0, 1, SIZE - 1, SIZE, 65535, chance.randrange(65536))))
    elif what == 2:   # a virtio header
        at = DATA + SPACE * chance.randrange(SIZE)
        memory[at:at + 12] = chance.randbytes(12)
    else:             # a descriptor that is well
        index = chance.randrange(SIZE)
        side.describe(index, GUEST + DATA + SPACE * index, SPACE - 12, 0)
