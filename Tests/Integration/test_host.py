"""Apus in a host with two NUMA nodes and network cards of its own, which it drives through VFIO: all of it emulated.

    left 10.0.0.1 ── wire ── card on node 1 (e1000e) ── apus ── card on node 0 (virtio) ── right 10.0.0.2

The e1000e finishes checksums (what it found out about those that came its driver keeps to itself where they are right);
virtio leaves them undone. What judges is as everywhere: the kernels of both namespaces, tshark, plain Python.
"""

import shutil

import pytest

from lab import oracle, owner, traffic
from lab.capture import Capture
from lab.chain import LEFT, RIGHT
from lab.daemon import binary
from lab.guest import GuestError, tap
from lab.host import ON_NODE, Host
from lab.netns import Namespace
from lab.scope import Scope

LEFT_MAC, RIGHT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
# Behind the virtual IOMMU, as a modern device.
VIRTIO = {"iommu_platform": "on", "disable-legacy": "on"}
MEGABYTES = 192


@pytest.fixture(scope="module", autouse=True)
def nothing_remains():
    """The host outlives a test here; the check for leftovers comes when it is gone."""
    yield
    assert not owner.remains()


class Street:
    """Context manager: the two namespaces and the host between them, whose cards `a` and `b` nobody drives yet."""

    def __init__(self):
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            enter = self._scope.enter_context
            self.directory = owner.temporary_directory()
            self._scope.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.left, self.right = enter(Namespace("left")), enter(Namespace("right"))
            self.devices = owner.device_name("l"), owner.device_name("r")
            nics = [tap(self.devices[0], "52:54:00:0a:00:01", model="e1000e", header=False, **ON_NODE[1]),
                    tap(self.devices[1], "52:54:00:0a:00:02", **VIRTIO, **ON_NODE[0])]
            self.host = enter(Host("host", nics, self.directory, binary(), namespace=self.left))
            self.left.ip(f"link set {self.devices[1]} netns {self.right.name}")
            self.left.configure(self.devices[0], LEFT_MAC, [f"{LEFT}/24"], {RIGHT: RIGHT_MAC})
            self.right.configure(self.devices[1], RIGHT_MAC, [f"{RIGHT}/24"], {LEFT: LEFT_MAC})
            self.host.hugepages(MEGABYTES // 4 + 8, MEGABYTES // 4 + 8)
            self.cards = self.host.cards()
            for card in self.cards:
                self.host.take(card)
        return self

    def __exit__(self, *exception):
        self._scope.close()

    def sections(self, polls_a="1") -> dict:
        """Both cards wired; CPU `polls_a` polls the one on node 1."""
        return {"apus": {"lcores": "0-1", "memory": f"{MEGABYTES}M", "hugepages": "on", "idle": "sleep"},
                "port a": {"driver": "pci", "address": self.cards[0], "lcores": polls_a},
                "port b": {"driver": "pci", "address": self.cards[1], "lcores": "0"}, "wire w": {"ports": "a b"}}

    def path(self, port, reverse=False):
        ends = [(self.left, LEFT), (self.right, RIGHT)]
        (client, _), (server, address) = ends[::-1] if reverse else ends
        return traffic.Path(client, server, (address, port), (address, port), 60)

    def wrong(self) -> int:
        return sum(namespace.counters()[name] for namespace in (self.left, self.right)
                   for name in ("TcpInCsumErrors", "UdpInCsumErrors", "IpInHdrErrors"))


@pytest.fixture(scope="module")
def street():
    with Street() as street:
        yield street


def test_packet_memory_lies_where_it_is_used(street):
    """A pool on each node; a card's buffers are of its own node, and who polls it from afar is told so."""
    with street.host.apus(street.sections(polls_a="0")):
        stats = street.host.stats()
    log = street.host.said
    assert set(stats["memory"]) == {"small-0", "small-1", "large-0", "large-1"}
    rings = {node: stats["memory"][f"small-{node}"]["used"] for node in (0, 1)}
    print(f"buffers in the cards' rings, by node: {rings}")
    assert rings[0] >= 128 and rings[1] >= 128, "each card holds buffers of its own node"
    assert "port a: its other end is on NUMA node 1 and CPU 0, which polls it, is not" in log and "say 'lcores = 1' in [port a]" in log
    assert "port b: its other end" not in log
    assert "every packet buffer is back" in log


def test_a_node_without_enough_hugepages_is_named(street):
    street.host.hugepages(MEGABYTES // 4 + 8, 3)
    try:
        with pytest.raises(GuestError, match="MB of free 2 MB hugepages on NUMA node 1 and there are 6 MB; reserve them with 'echo 48 > "
                           "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages'"):
            with street.host.apus(street.sections()):
                pass
    finally:
        street.host.hugepages(MEGABYTES // 4 + 8, MEGABYTES // 4 + 8)


def test_cards_carry(street):
    """Of what the e1000e brings nothing is known, and it leaves as it came; what virtio left undone the e1000e finishes:
    software sums nothing."""
    before = street.wrong()
    with street.host.apus(street.sections()), Capture(street.left, street.devices[0]) as capture:
        traffic.tcp_upload(street.path(5201), 1 << 18)
        traffic.tcp_upload(street.path(5202, reverse=True), 1 << 18)
        traffic.tcp_short_connections(street.path(5203), 5)
        traffic.udp_echo(street.path(5204, reverse=True), 40, window=8)
        stats, seen = street.host.stats(), oracle.examine(capture.frames())
    log = street.host.said
    print({name: stats["checksum"][name] for name in ("rx", "tx", "software_full")}, f"{len(seen.frames)} frames on the wire")
    assert "its other end" not in log and "every packet buffer is back" in log
    assert street.wrong() == before and seen.findings == [] and seen.partial == seen.superframes == 0
    assert oracle.ask_tshark(street.directory, seen.finished) == [] and oracle.check_conservation(stats) == []
    checksums = stats["checksum"]
    assert not any(checksums["software_full"].values())
    assert checksums["rx"] == checksums["tx"] and checksums["rx"]["none"] > 100 and checksums["rx"]["partial"] > 100
