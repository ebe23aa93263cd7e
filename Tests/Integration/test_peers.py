"""Peers that are killed with full rings and come back; the end under load; nothing lost at 70 % of capacity."""

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import time

import pytest

from lab import hugepages, iperf, oracle, owner, process
from lab.chain import PACKET_PAGES, RIGHT, Chain
from lab.daemon import Daemon, binary, polling_core
from lab.scope import Scope

KILLS = 3
_SEND_BUFFER, _RECEIVE_BUFFER = 32, 33   # SO_SNDBUFFORCE and SO_RCVBUFFORCE, which Python does not name
# A burst or two on their way; what a peer's ring may hold at any moment, full or not.
SLACK, RING_BUFFERS = 128, 1024
OTHER = {"server": "client", "client": "server"}


class Peer:
    """testpmd, which sends back whatever comes, on the core that the forwarder does not poll."""

    def __init__(self, vdev: str, directory):
        self._vdev, self._directory = vdev, directory

    def start(self):
        core = next(iter(os.sched_getaffinity(0) - {polling_core()}), polling_core())
        self._log = open(self._directory / "testpmd.log", "ab")
        self.child = process.spawn(
            ["dpdk-testpmd", "--lcores", f"0@{core},1@{core}", "--no-huge", "-m", 192, "--no-pci", "--no-telemetry",
             "--file-prefix", owner.name("peer"), "--vdev", self._vdev, "--", "--forward-mode=macswap", "--auto-start", "--nb-cores=1",
             "--total-num-mbufs=8192", "--no-lsc-interrupt", "--stats-period=60"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self._log.close()
        shutil.rmtree(f"/run/dpdk/{owner.name('peer')}", ignore_errors=True)  # what a killed EAL leaves


def peers(kind, role, ring, mergeable, path):
    """The forwarder's port and testpmd's device at the other end of `path`."""
    if kind == "vhost-user":
        vdev = f"net_virtio_user0,path={path},server={int(role == 'client')},packed_vq={int(ring == 'packed')},mrg_rxbuf={int(mergeable == 'on')}"
        return {"driver": "vhost-user", "path": path, "role": role}, vdev
    port = {"driver": "virtio-user", "path": path, "role": role, "ring": ring, "mergeable": mergeable}
    return port, f"net_vhost0,iface={path},client={int(role == 'server')}"


@pytest.mark.parametrize("kind,role,ring,mergeable", itertools.product(
    ["vhost-user", "virtio-user"], ["server", "client"], ["split", "packed"], ["on", "off"]))
def test_killed_peers_come_back(kind, role, ring, mergeable):
    """A generator keeps the ring to the peer full. The daemon's exit status says that no buffer is missing."""
    with Scope() as scope, hugepages.Reserved(PACKET_PAGES):
        directory = owner.temporary_directory()
        scope.callback(shutil.rmtree, directory, ignore_errors=True)
        path = directory / "p.sock"
        port, vdev = peers(kind, role, ring, mergeable, path)
        sections = {"port p": port, "port g": {"driver": "vdev", "devargs": "net_null_g,size=64"}, "wire w": {"ports": "p g"}}
        peer = Peer(vdev, directory)
        listens_first = role == "server"
        with Daemon(sections, binary()) as daemon:
            chance = random.Random(f"{kind}{role}{ring}{mergeable}")
            dead, alive = [], []   # buffers in use, by kill
            for round in range(KILLS):
                if not listens_first and path.exists():
                    path.unlink()
                peer.start()
                try:
                    resumes(daemon, peer, directory)
                    time.sleep(chance.random() / 2)
                    alive.append(used(daemon))
                finally:
                    peer.kill()
                time.sleep(0.3 + chance.random() / 10)
                dead.append(used(daemon))
            stats = daemon.stats()
            assert stats["ports"]["p"]["drops"]["transmit_full"] > 0
        # Leaving the block checked the exit status.
    print(f"buffers in use while the peer is dead {dead}, while it is there {alive}")
    # What a killed peer held is back at once, and no kill leaves more behind than the one before.
    assert max(dead) <= min(dead) + SLACK and max(alive) <= min(alive) + RING_BUFFERS + SLACK, (dead, alive)


def used(daemon) -> int:
    """The least of a few samples: packets on their way come and go."""
    return min(sum(pool["used"] for pool in daemon.stats()["memory"].values()) for _ in range(10))


def resumes(daemon, peer, directory, seconds=15):
    """Both ways: what the peer sends back is counted as received."""
    before, deadline = daemon.stats()["ports"]["p"], time.monotonic() + seconds
    while True:
        now = daemon.stats()["ports"]["p"]
        if now["rx_packets"] > before["rx_packets"] + 1000 and now["tx_packets"] > before["tx_packets"] + 1000:
            return
        assert time.monotonic() < deadline and peer.child.poll() is None, (
            f"{before} {now}\n{(directory / 'testpmd.log').read_text()[-2000:]}\n{daemon.log()[-3000:]}")
        time.sleep(0.05)


@pytest.mark.parametrize("lcores", ["1", "0-1"])
def test_sums_hold_under_load_and_at_the_end(lcores):
    """Received and made equals sent and dropped, to the packet, in every answer of the stats socket while both ports bring
    more than can be carried: floods, a port that sends to itself, bursts that wait for another lcore. Traffic is stopped
    by SIGTERM itself, at full load, and no buffer is missing."""
    sections = {"apus": {"lcores": lcores},
                "port a": {"driver": "vdev", "devargs": "net_null_a,size=64"}, "port b": {"driver": "vdev", "devargs": "net_null_b,size=200"},
                "port c": {"driver": "null"}, "bridge br0": {"ports": "a b c"}}
    with Daemon(sections, binary()) as daemon:
        received, deadline = [], time.monotonic() + 3
        while time.monotonic() < deadline:
            stats = daemon.stats()
            assert oracle.check_conservation(stats) == []
            received.append(sum(port["rx_packets"] for port in stats["ports"].values()))
        print(f"{len(received)} answers, {received[-1]} packets")
        assert len(received) >= 20 and received[-1] > 1_000_000
        assert all(later > earlier for earlier, later in zip(received, received[1:])), "an answer was an old one"
    # Leaving the block sent SIGTERM and checked the exit status.


def test_numbered_udp_arrives_at_70_percent():
    """Capacity is the highest rate at which iperf3, alone, lost under 0.1 %; at 70 % of it none of its numbers is missing."""
    with Chain(lambda _: {"wire w": {"ports": "a b"}}) as chain:
        # Longer than the default by what the machine's other work keeps the polling core away for.
        for namespace, device in chain.devices.values():
            namespace.ip(f"link set {device} txqueuelen 20000")
        capacity = iperf.udp_capacity(chain.left, chain.right, RIGHT)
        sent, lost = iperf.udp(chain.left, chain.right, RIGHT, bits_per_second=int(0.7 * capacity), seconds=3)
        stats = chain.daemon.settled_stats()
    print(f"capacity {capacity / 1e6:.0f} Mbit/s in datagrams of 1000 bytes; at 70 %: {sent} sent, {lost} lost")
    assert sent > 10_000 and lost == 0
    assert oracle.check_conservation(stats) == []


def test_what_a_tap_loses_is_lost_before_and_counted():
    """The polling core is kept away for longer than the device's queue lasts (txqueuelen, 1000 frames): what does not fit
    the kernel drops at the device and counts there (`ip -s link`, TX dropped). Not one is missing anywhere else."""
    sent = 3000
    with Chain(lambda _: {"wire w": {"ports": "a b"}}) as chain:
        (left, device), (right, _) = chain.devices.values()
        with left.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, right.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER, 16 << 20)
            receiver.bind((RIGHT, 9))
            receiver.settimeout(0.5)
            # A queue before the device's would wait for it, and lose on its own.
            sender.setsockopt(socket.SOL_SOCKET, _SEND_BUFFER, 16 << 20)
            before = left.device_counters(device)
            os.kill(chain.daemon.pid, signal.SIGSTOP)
            try:
                for number in range(sent):
                    sender.sendto(number.to_bytes(4, "big"), (RIGHT, 9))
            finally:
                os.kill(chain.daemon.pid, signal.SIGCONT)
            arrived = []
            while len(arrived) < sent:
                try:
                    arrived.append(int.from_bytes(receiver.recv(100), "big"))
                except TimeoutError:
                    break
        lost = left.device_counters(device)["tx_dropped"] - before["tx_dropped"]
        queue = left.call("tc", "-s", "qdisc", "show", "dev", device)
        stats = chain.daemon.settled_stats()
    print(f"{len(arrived)} of {sent} arrived, {lost} were dropped at the device")
    assert "(dropped 0," in queue, queue
    assert lost > 1000 and len(arrived) == sent - lost
    # The first that came were kept, in order: what stands in the queue is never lost.
    assert arrived == list(range(len(arrived)))
    assert oracle.check_conservation(stats) == [] and not any(stats["ports"]["a"]["drops"].values())
