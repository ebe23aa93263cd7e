"""The daemon with one vhost-user port, for peers that do what they should not: what both kinds of tests of them need."""

import shutil
import struct
import time

from lab import oracle, owner, packets
from lab.daemon import Daemon, binary
from lab.scope import Scope
from lab.vhost import FrontEnd, Packed, Split

RINGS = [Split, Packed]
HEADER_BYTES = 12


def frame(number: int, length: int = 100) -> bytes:
    return packets.ipv4(17, packets.udp(struct.pack("!I", number) + bytes(length - 4)))


class Lab:
    """The daemon with one vhost-user port, wired to a file or to a generator."""

    def __init__(self, sections):
        self._sections = sections

    def __enter__(self):
        self._scope = Scope()
        with self._scope.building():
            self.directory = owner.temporary_directory()
            self._scope.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.path, self.written = self.directory / "h.sock", self.directory / "out.pcap"
            ports = {"port h": {"driver": "vhost-user", "path": self.path}, "wire w": {"ports": "h o"}, "apus": {"hugepages": "off"}}
            self.daemon = self._scope.enter_context(Daemon(ports | self._sections(self), binary()))
        return self

    def __exit__(self, *exception):
        self._scope.__exit__(*exception)

    def received(self):
        return self.daemon.stats()["ports"]["h"]["rx_packets"]

    def settled(self):
        stats = self.daemon.settled_stats()
        assert oracle.check_conservation(stats) == []
        return stats["ports"]


def to_a_file(lab):
    return {"port o": {"driver": "pcap", "tx": lab.written}}


def carries(lab, front, number, when=""):
    """A frame of this peer's is received."""
    before = lab.received()
    front.send(frame(number))
    deadline = time.monotonic() + 5
    while lab.received() == before:
        assert time.monotonic() < deadline, f"frame {number}{when}: nothing is received any more\n{lab.daemon.log()[-3000:]}"
        time.sleep(0.002)


def follow(lab, ring, number, name):
    """A peer that behaves, on the same socket."""
    with FrontEnd(lab.path, ring) as front:
        carries(lab, front, number, f", after {name}")
