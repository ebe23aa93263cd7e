"""The host's own stack as a port: devices that stay, what their kernel is offered, superframes of UDP."""

import socket
import time

import pytest

from lab import hugepages, oracle, owner, packets, process, traffic
from lab.chain import LEFT, PACKET_PAGES, RIGHT, Chain
from lab.daemon import Daemon, DaemonFailed, binary
from lab.netns import Namespace

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
WIRE = {"wire w": {"ports": "a b"}}


def two_taps(_=None):
    return dict(WIRE)


@pytest.mark.parametrize("deliver", ["offload", "full"])
def test_superframes_of_datagrams(deliver):
    """UDP_SEGMENT at one end, UDP_GRO at the other: whole where the receiver takes it so, else cut, each datagram right."""
    sizes = [1400, 600, 1472, 8]
    with Chain(two_taps, tap={"deliver": deliver}) as chain, \
            chain.left.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, chain.right.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((RIGHT, 5202))
        receiver.settimeout(5)
        receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        before = chain.right.counters()
        for size in sizes:
            # The last datagram is shorter than the others.
            data = traffic.pseudo_random(size * 40 + size // 2, seed=size)
            sender.setsockopt(SOL_UDP, UDP_SEGMENT, size)
            sender.sendto(data, (RIGHT, 5202))
            got, pieces = b"", 0
            while len(got) < len(data):
                piece = receiver.recv(1 << 16)
                assert len(piece) == size or len(piece) > size or len(got) + len(piece) == len(data)
                got, pieces = got + piece, pieces + 1
            assert got == data
        after = chain.right.counters()
        stats = chain.daemon.settled_stats()
    assert oracle.check_conservation(stats) == []
    assert stats["ports"]["a"]["rx_superframes"] == len(sizes), "the kernel was offered UDP segmentation"
    assert after["UdpInCsumErrors"] == before["UdpInCsumErrors"]
    whole, causes = stats["ports"]["b"]["tx_superframes"], stats["checksum"]["software_full"]
    if deliver == "offload":
        assert whole == len(sizes) and sum(causes.values()) == 0
    else:
        assert whole == 0 and causes["segment"] == 41 * len(sizes)
        assert stats["checksum"]["tx"]["partial"] == 0


@pytest.mark.parametrize("offloads,partial,superframes", [("on", True, True), ("checksum", True, False), ("off", False, False)])
def test_offloads_say_what_the_kernel_leaves(offloads, partial, superframes):
    with Chain(two_taps, tap={"offloads": offloads}) as chain:
        traffic.tcp_upload(chain.path(), 1 << 20)
        traffic.tcp_download(chain.path(), 1 << 20)
        stats = chain.daemon.settled_stats()
    assert oracle.check_conservation(stats) == []
    assert (stats["checksum"]["rx"]["partial"] > 0) == partial
    assert (stats["ports"]["a"]["rx_superframes"] > 0) == superframes
    assert oracle.full_checksums(stats) == 0


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("queues", [1, 2])
def test_persistent_devices_stay_and_are_taken_up_again(moved, queues):
    """A device outlives its daemon with everything set on it; without the word, it does not."""
    label = owner.device_name("p")
    with hugepages.Reserved(PACKET_PAGES), Namespace("space") as space:
        def sections(persistent):
            tap = {"driver": "tap", "interface": label, "persistent": persistent, "queues": queues} | ({"netns": space.name} if moved else {})
            return {"port t": tap, "port n": {"driver": "null"}, "wire w": {"ports": "t n"}}

        def ip(*words):
            return process.call("ip", *(["-n", space.name] if moved else []), *words)

        def exists():
            return label in ip("-o", "link", "show")
        try:
            with Daemon(sections("on"), binary()):
                ip("link", "set", label, "address", "02:00:00:00:00:77")
                ip("address", "add", "198.18.77.1/32", "dev", label)
                index = ip("-o", "link", "show", label).split(":")[0]
            assert exists()
            with Daemon(sections("on"), binary()) as daemon:
                assert ip("-o", "link", "show", label).split(":")[0] == index
                assert "02:00:00:00:00:77" in ip("link", "show", label) and "198.18.77.1" in ip("address", "show", label)
                frame = packets.ipv4(17, packets.udp(bytes(100)))
                raw = (socket.AF_PACKET, socket.SOCK_RAW, 0)
                # The kernel takes up to a second to notice that the device has a carrier again.
                deadline = time.monotonic() + 5
                with (space.socket(*raw) if moved else socket.socket(*raw)) as sender:
                    while daemon.stats()["ports"]["t"]["rx_bytes"] < 20 * len(frame):
                        assert time.monotonic() < deadline, daemon.stats()["ports"]["t"]
                        sender.sendto(frame, (label, 0x0800))
                        time.sleep(0.01)
            with Daemon(sections("off"), binary()):
                assert exists()
            deadline = time.monotonic() + 5
            while exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not exists(), "taken up by a daemon that does not keep it"
        finally:
            if exists():
                ip("link", "del", label)


def test_a_persistent_device_of_another_shape_is_refused_with_a_remedy():
    label = owner.device_name("p")
    process.call("ip", "tuntap", "add", "dev", label, "mode", "tap")
    try:
        with pytest.raises(DaemonFailed) as failure:
            with Daemon({"port t": {"driver": "tap", "interface": label, "queues": 2}, "port n": {"driver": "null"},
                         "wire w": {"ports": "t n"}}, binary()):
                pass
    finally:
        process.call("ip", "link", "del", label)
    assert f"cannot create the tap device '{label}'" in str(failure.value)
    assert "the number of queues that a persistent one was made with" in str(failure.value)


def test_what_gro_joined_stays_joined():
    """Segments that a veth's GRO joined on their way to the tap arrive as superframes, and leave as such.

        far ── veth, TSO off, GRO on at near ── left (router) ── tap a ── apus ── tap b ── right
    """
    with Chain(two_taps) as chain, Namespace("far") as far:
        left, device = chain.devices["a"]
        left.ip(f"link add near type veth peer name far netns {far.name}")
        far.offloads("far", tx=False, tso=False, gso=False)
        left.offloads("near", gro=True)
        left.call("ethtool", "-K", "near", "rx-gro-list", "off")
        left.sysctl("net/ipv4/ip_forward", 1)
        left.configure("near", "02:00:00:00:01:01", ["10.0.1.1/24"], {"10.0.1.2": "02:00:00:00:01:02"})
        far.configure("far", "02:00:00:00:01:02", ["10.0.1.2/24"], {"10.0.1.1": "02:00:00:00:01:01"})
        far.ip("route add 10.0.0.0/24 via 10.0.1.1")
        chain.right.ip(f"route add 10.0.1.0/24 via {LEFT}")
        path = traffic.Path(far, chain.right, (RIGHT, 5201), (RIGHT, 5201))
        traffic.tcp_upload(path, 4 << 20)
        stats = chain.daemon.settled_stats()
    assert oracle.check_conservation(stats) == []
    assert stats["ports"]["a"]["rx_superframes"] > 20
    assert stats["ports"]["a"]["rx_superframes"] == stats["ports"]["b"]["tx_superframes"]
    assert oracle.full_checksums(stats) == 0
