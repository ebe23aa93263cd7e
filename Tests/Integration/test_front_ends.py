"""A vhost-user front end that breaks the protocol, moves its memory, takes it back, or is one of two: the forwarder lives, and
the next one on the same socket finds a port that works."""

import contextlib
import struct
import time

import pytest

from lab import hugepages
from lab.hostile import HEADER_BYTES, RINGS, Lab, carries, follow, frame, to_a_file
from lab.vhost import GET_FEATURES, GUEST, MEMORY, SIZE, USER, FrontEnd, Split


MESSAGES = {
    "no memory": lambda front: front.share(()),
    "nine regions": lambda front: front.share([(GUEST + n * 4096, 4096, 0x7000_0000_0000 + n * 4096, n * 4096) for n in range(9)]),
    "a ring of 0": lambda front: front.start(0, front.receive, size=0),
    "a ring of 3": lambda front: front.start(0, front.receive, size=3),
    "a ring of 65536": lambda front: front.start(0, front.receive, size=65536),
    "a ring elsewhere": lambda front: front.start(0, front.receive, shift=MEMORY),
    "a ring half outside": lambda front: front.start(1, front.transmit, shift=MEMORY - 0x5000),
    "a queue nobody has": lambda front: front.message(8, struct.pack("<II", 1 << 20, 256)),
    "an unknown request": lambda front: front.message(0xFFFF, bytes(8)),
    "a message too long": lambda front: front.message(2, bytes(1 << 16)),
    "a message too short": lambda front: front.message(9, bytes(3)),
    "descriptors nobody asked for": lambda front: front.message(3, b"", [0, 1, 2]),
}


def test_hostile_messages():
    """A front end that breaks the protocol loses its connection at most; the next one is served.

    Not here: a memory table that cannot be mapped, given while the rings run. It ends the process in the library (DPDK
    22.11): a front end, unlike its guest, is trusted with that.
    """
    with Lab(to_a_file) as lab:
        for number, (name, say) in enumerate(MESSAGES.items()):
            with contextlib.suppress(OSError), FrontEnd(lab.path) as front:
                say(front)
                front.send(frame(5))
                time.sleep(0.05)
            follow(lab, Split, 2000 + number, name)
        lab.settled()


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: ring.__name__.lower())
def test_the_latest_front_end_is_the_guest(ring):
    """One that connects while another one is there takes over; the other's messages and end change nothing any more."""
    with Lab(to_a_file) as lab:
        with contextlib.ExitStack() as ending:
            old = ending.enter_context(FrontEnd(lab.path, ring))
            carries(lab, old, 1)
            with FrontEnd(lab.path, ring) as new:
                carries(lab, new, 2)
                old.message(GET_FEATURES, answered=True)
                carries(lab, new, 3)
                ending.close()
                carries(lab, new, 4)
        follow(lab, ring, 5, "two at once")
        assert lab.settled()["o"]["tx_packets"] == 5


def to_nowhere(lab):
    return {"port o": {"driver": "null"}}


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: ring.__name__.lower())
def test_memory_that_moves(ring):
    """A front end gives its memory anew, all of it, in two pieces, or half of it, while full rings are read, also ahead of
    time: nothing is read where it was before."""
    half = MEMORY // 2
    tables = [[(GUEST, MEMORY, USER, 0)], [(GUEST, half, USER, 0), (GUEST + half, half, USER + half, half)], [(GUEST, half, USER, 0)]]
    with Lab(to_nowhere) as lab:
        with FrontEnd(lab.path, ring) as front:
            # Long frames, so that a ring of them is read for as long as several tables take.
            data = bytes(HEADER_BYTES) + frame(1, 60000)
            address = front.put(data)
            sent, given, ends = 0, 0, time.monotonic() + 3
            while time.monotonic() < ends:
                front.transmit.offer(*(front.transmit.chain([(address, len(data), 0)], number) for number in range(SIZE)))
                sent += SIZE
                deadline = time.monotonic() + 5
                while lab.received() < sent:
                    assert time.monotonic() < deadline, f"{lab.received()} of {sent} received\n{lab.daemon.log()[-3000:]}"
                    for table in tables * 3:
                        given += 1
                        front.share(table)
        print(f"{sent} frames, {given} tables")
        follow(lab, ring, 1, "memory that moved")
        ports = lab.settled()
    assert ports["h"]["rx_packets"] == sent + 1


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: ring.__name__.lower())
@pytest.mark.parametrize("pages, left", [("small", 0), ("small", 0x1000), ("huge", 0)], ids=["all of it", "all but a page", "a hugepage"])
def test_memory_cut_short(ring, pages, left):
    """A peer takes back the memory it shares while the daemon uses it: its port is told of, the daemon lives, and the
    next peer finds a port that works."""
    with contextlib.ExitStack() as things:
        if pages == "huge":
            things.enter_context(hugepages.Reserved(1))
        lab = things.enter_context(Lab(to_a_file))
        with FrontEnd(lab.path, ring, hugepages=pages == "huge") as front:
            for number in range(10):
                front.send(frame(number), at=512 * number)
            front.wait(front.transmit, 10)
            front.cut(left)
            deadline = time.monotonic() + 5
            while "port h: its peer cut memory short that it shares" not in lab.daemon.log():
                assert time.monotonic() < deadline, lab.daemon.log()
                time.sleep(0.01)
        follow(lab, ring, 1000, "memory cut short")
        lab.settled()
