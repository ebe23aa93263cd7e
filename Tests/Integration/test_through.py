"""Forwarding *through* a Linux bridge and through a Linux guest that bridges, out of a device without any offload: their
kernels finish what Apus left unfinished, literally, so that every seed, start and offset has to be right.

    left 10.0.0.1 ── tap a ── apus ── tap m ──── bridge in a namespace ── veth without offloads ── far 10.0.0.2
                                   └─ vhost-user ── bridge in a guest ── NIC without offloads ── far 10.0.0.2

Besides TCP between the kernels: frames written by hand, with padding behind the datagram, behind IPv6 extension headers,
and superframes of both. What comes out is captured, and verified by plain Python, by tshark, and by the far kernel.
"""

import os
import pathlib
import shutil
import socket
import struct
import time

import pytest

from lab import hugepages, oracle, owner, packets, traffic, wire
from lab.capture import Capture
from lab.chain import LEFT, PACKET_PAGES, RIGHT
from lab.daemon import REPOSITORY, Daemon, binary, polling_core, present
from lab.guest import Guest, tap, vhost_user
from lab.netns import Namespace
from lab.scope import Scope

LEFT_MAC, FAR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
PLANTED = os.environ.get("APUS_PLANTED_BINARY", REPOSITORY / ".build-planted/release/apus")
SOL_PACKET, PACKET_VNET_HDR = 263, 15


@pytest.fixture(scope="module", autouse=True)
def nothing_remains():
    """Guests outlive a test here; the check for leftovers comes when they are gone."""
    yield
    assert not owner.remains()


class Way:
    """Context manager: from `left` through Apus and a Linux that bridges, to `far`."""

    def __init__(self, executable=None, environment=None):
        self._executable, self._environment = executable or binary(), environment
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            self._build()
        return self

    def __exit__(self, *exception):
        self._scope.__exit__(*exception)

    def _build(self):
        enter = self._scope.enter_context
        enter(hugepages.Reserved(PACKET_PAGES))
        self.directory = owner.temporary_directory()
        self._scope.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.left, self.far = enter(Namespace("left")), enter(Namespace("far"))
        self.device = owner.device_name("a")
        ports = {"port a": {"driver": "tap", "interface": self.device, "netns": self.left.name}, "wire w": {"ports": "a m"}}
        self.daemon = enter(Daemon(ports | self._port(enter), self._executable, self._environment))
        self._join(enter)
        self.left.configure(self.device, LEFT_MAC, [f"{LEFT}/24"], {RIGHT: FAR_MAC})
        self.far.configure(self.far_device, FAR_MAC, [f"{RIGHT}/24"], {LEFT: LEFT_MAC})
        self._wait_until_it_carries()

    def _wait_until_it_carries(self, seconds=30):
        """The middle's own links come up in their own time, and what comes before is lost there."""
        deadline, count = time.monotonic() + seconds, 0
        with Capture(self.far, self.far_device) as capture:
            while True:
                if not count:
                    assert time.monotonic() < deadline, "nothing comes through"
                    send(self, packets.ipv4(17, packets.udp(b"is it open?")), 0, 0, 0)
                time.sleep(0.2)
                before, count = count, len(from_left(capture.frames()))
                if count == before > 0:
                    return

    def deliver(self, how):
        self.daemon.ask(f"port set m deliver={how}")

    def path(self, port=5201):
        return traffic.Path(self.left, self.far, (RIGHT, port), (RIGHT, port), 30)

    def judged(self, frames):
        """Raises Violation where something that came out is wrong; else what came."""
        seen = oracle.examine(frames)
        findings = {"frames": seen.findings, "tshark": oracle.ask_tshark(self.directory, seen.finished)}
        if findings := {kind: found for kind, found in findings.items() if found}:
            raise oracle.Violation(findings)
        assert seen.partial == seen.superframes == 0, "the last device has no offload"
        return seen

    def errors(self):
        return sum(self.far.counters()[name] for name in ("TcpInCsumErrors", "UdpInCsumErrors"))


class ThroughBridge(Way):
    far_device = "far"

    def _port(self, enter):
        self.middle = enter(Namespace("middle"))
        self._tap = owner.device_name("m")
        return {"port m": {"driver": "tap", "interface": self._tap, "netns": self.middle.name}}

    def _join(self, enter):
        self.middle.ip("link add br0 type bridge", f"link set {self._tap} master br0", "link set br0 up",
                       f"link add near type veth peer name far netns {self.far.name}", "link set near master br0 up")
        self.middle.offloads("near", tx=False, tso=False, gso=False, gro=False)
        self.far.offloads("far", rx=False, gro=False)


class ThroughGuest(Way):
    def _port(self, enter):
        return {"port m": {"driver": "vhost-user", "path": self.directory / "m.sock"}}

    def _join(self, enter):
        self.far_device = owner.device_name("f")
        nics = [vhost_user(self.directory / "m.sock", "52:54:00:0a:00:01"),
                tap(self.far_device, "52:54:00:0a:00:02", csum="off", guest_csum="off")]
        cores = os.sched_getaffinity(0) - {polling_core()}
        guest = enter(Guest("b", nics, self.directory, namespace=self.far, cores=cores))
        guest.run("for module in llc stp bridge; do insmod /lib/$module.ko; done; brctl addbr br0 && "
                  "brctl addif br0 eth0 && brctl addif br0 eth1 && for device in eth0 eth1 br0; do ip link set $device promisc on up; done")
        assert {"GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6"} <= guest.features("eth0")


@pytest.fixture(scope="module", params=[ThroughBridge, ThroughGuest], ids=["bridge", "guest"])
def way(request):
    with request.param() as way:
        yield way


# Frames by hand: (bytes, GSO type, GSO size). Unfinished, all of them.

def extended(protocol, l4, kind):
    header = {"hop by hop": (0, bytes([protocol, 0, 1, 4, 0, 0, 0, 0])), "destination": (60, bytes([protocol, 1, 1, 12]) + bytes(12))}
    number, options = header[kind]
    return packets.ipv6(number, options + l4)


def by_hand():
    bulk = traffic.pseudo_random(20_000, seed=5)
    for length in (1, 2, 18, 19, 200):
        for padding in (0, 1, 7, 18):
            yield packets.ipv4(17, packets.udp(bulk[:length])), padding, 0, 0
            yield packets.ipv4(6, packets.tcp(bulk[:length])), padding, 0, 0
            yield packets.ipv4(6, packets.tcp(bulk[:length]), options=b"\1\1\1\0"), padding, 0, 0
            yield packets.ipv6(17, packets.udp(bulk[:length])), padding, 0, 0
            for kind in ("hop by hop", "destination"):
                yield extended(17, packets.udp(bulk[:length]), kind), padding, 0, 0
                yield extended(6, packets.tcp(bulk[:length]), kind), padding, 0, 0
    for size in (1000, 1401):
        yield packets.ipv4(6, packets.tcp(bulk)), 0, 1, size
        yield packets.ipv6(6, packets.tcp(bulk)), 0, 4, size
        for kind in ("hop by hop", "destination"):
            yield extended(6, packets.tcp(bulk), kind), 0, 4, size


def send(way, frame, padding, gso, size) -> int:
    """How many frames are to come out."""
    frame, packet = packets.seeded(frame)
    headers = packet.l4 + (20 if packet.protocol == wire.TCP else 8)
    header = struct.pack("=BBHHHH", 1, gso, headers if gso else 0, size, packet.l4, packet.checksum_offset)
    with way.left.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sender.bind((way.device, 0))
        sender.send(header + frame + b"\xee" * padding)
    return -(-(len(frame) - headers) // size) if gso else 1


# A guest under an emulator drops what comes faster than it bridges: as many may be on their way.
ON_THEIR_WAY = 16


def from_left(frames):
    return [frame for frame in frames if frame.data[6:12] == bytes.fromhex(LEFT_MAC.replace(":", ""))]


def all_by_hand(way):
    """Sends them, and gives what came out at the other end."""
    def wait(count):
        for _ in range(100):
            if len(frames := from_left(capture.frames())) >= count:
                break
            way.daemon.settled_stats()
        return frames

    before, expected = way.daemon.stats()["ports"]["m"]["drops"], 0
    with Capture(way.far, way.far_device) as capture:
        for index, case in enumerate(by_hand()):
            if index % ON_THEIR_WAY == 0 and len(wait(expected)) < expected:
                break
            expected += send(way, *case)
        frames = wait(expected)
    assert way.daemon.stats()["ports"]["m"]["drops"] == before
    return frames, expected


def test_a_planted_seed_is_found():
    """First, since what follows keeps its own namespaces."""
    executable = present(pathlib.Path(PLANTED), "APUS_PLANTED_BINARY")
    with ThroughBridge(executable, {"APUS_PLANT": "wrong-seed"}) as way:
        frames, _ = all_by_hand(way)
        with pytest.raises(oracle.Violation) as violation:
            way.judged(frames)
    assert violation.value.kinds == {"frames", "tshark"}


@pytest.mark.parametrize("how", ["offload", "full"])
def test_frames_by_hand(way, how):
    way.deliver(how)
    frames, expected = all_by_hand(way)
    seen = way.judged(frames)
    assert len(seen.finished) == len(frames) == expected
    # Datagrams byte for byte, whatever stood behind them.
    sent = {wire.parse(frame).payload(frame) for frame, _, gso, _ in by_hand() if not gso}
    came = {wire.parse(frame).payload(frame) for frame in seen.finished}
    assert sent <= came


@pytest.mark.parametrize("how", ["offload", "full"])
def test_tcp(way, how):
    way.deliver(how)
    before, errors = way.daemon.settled_stats(), way.errors()
    with Capture(way.far, way.far_device) as capture:
        traffic.tcp_upload(way.path(), 2 << 20)
        traffic.tcp_short_connections(way.path(), 5)
        traffic.udp_echo(way.path(5202), 50, window=8)
        frames = capture.frames()
    traffic.tcp_download(way.path(), 1 << 20)
    way.judged(frames)
    stats = way.daemon.settled_stats()
    assert way.errors() == errors and oracle.check_conservation(stats) == []
    superframes = stats["ports"]["m"]["tx_superframes"] - before["ports"]["m"]["tx_superframes"]
    assert (superframes > 10) == (how == "offload")
