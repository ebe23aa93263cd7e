"""Several queues and lcores, taps polled with restraint, idle modes."""

import socket
import statistics
import struct
import time

import pytest

from lab import oracle, traffic
from lab.chain import LEFT, RIGHT, Chain
from test_ports import virtio, wait_for_peer

SLEEPY = {"lcores": "0-1", "idle": "sleep"}


@pytest.mark.parametrize("queues", [1, 2])
def test_two_lcores(queues):
    """With a queue an lcore, and with one that both share: nothing is lost, and waiting for each other is counted."""
    with Chain(virtio("server", "split", "on", queues), apus=SLEEPY, tap={"queues": queues}) as chain:
        wait_for_peer(chain.daemon)
        for port in range(5210, 5218):   # flows for both queues of the kernel's side
            traffic.tcp_upload(chain.path(port), 1 << 18)
        chain.exercise()
        stats = chain.daemon.settled_stats()
    assert oracle.check_conservation(stats) == []
    shared = {name: port["shared_bursts"] for name, port in stats["ports"].items()}
    assert shared["a"] == shared["b"] == 0, "the kernel orders writes to a tap"
    # A guest may enable fewer queues than there are, so vhost's are always taken with care.
    assert shared["x"] > 0 and (shared["y"] > 0) == (queues == 1), shared
    if queues == 2:
        assert all(lcore["packets"] > 100 for lcore in stats["lcores"].values()), stats["lcores"]


def test_ports_keep_to_their_lcores():
    with Chain(lambda _: {"wire w": {"ports": "a b"}}, apus=SLEEPY, tap={"lcores": "0"}) as chain:
        chain.exercise()
        stats = chain.daemon.settled_stats()
    assert stats["lcores"]["1"]["packets"] == 0 < stats["lcores"]["0"]["packets"]
    assert oracle.check_conservation(stats) == []


def round_trips(chain, count=2000) -> list[float]:
    """Microseconds, one datagram at a time."""
    with chain.right.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, chain.left.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.bind((RIGHT, 7))
        client.connect((RIGHT, 7))
        server.setblocking(False), client.setblocking(False)
        times = []
        for number in range(count):
            before = time.perf_counter()
            client.send(struct.pack("!I", number))
            data, peer = spin(server.recvfrom)
            server.sendto(data, peer)
            assert struct.unpack("!I", spin(client.recv))[0] == number
            times.append((time.perf_counter() - before) * 1e6)
        return times


def spin(receive):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            return receive(100)
        except BlockingIOError:
            pass
    raise TimeoutError("a datagram was lost")


def test_taps_beside_others_are_polled_with_restraint():
    """Looks in vain cost at most 2 % of the lcore, and a frame waits at most 50 microseconds for being looked at.

    The cost is what the lcore counts: cycles spent in reads that found nothing. The latency is the difference of two
    medians of round trips, each of which crosses a tap's receive side twice: beside a virtio port, where the taps are
    paced, and alone, where they are not.
    """
    def beside(directory):
        return {"port x": {"driver": "vhost-user", "path": directory / "x.sock"}, "port y": {"driver": "null"},
                "wire w": {"ports": "a b"}, "wire v": {"ports": "x y"}}
    with Chain(lambda _: {"wire w": {"ports": "a b"}}) as chain:
        alone = statistics.median(round_trips(chain))
    with Chain(beside) as chain:
        before = chain.daemon.stats()["lcores"]
        time.sleep(1)
        idle = share(before, chain.daemon.stats()["lcores"])
        before = chain.daemon.stats()["lcores"]
        paced = statistics.median(round_trips(chain))
        busy = share(before, chain.daemon.stats()["lcores"])
        chain_looks = chain.daemon.stats()["lcores"].values()
    [lcore] = chain_looks
    print(f"one look: {lcore['cycles_empty_looks'] / lcore['empty_looks']:.0f} cycles")
    print(f"empty looks: {idle:.2%} of the lcore when idle, {busy:.2%} under load; round trip {alone:.1f} us alone, {paced:.1f} us beside others")
    assert 0 < idle <= 0.02 and busy <= 0.02
    assert (paced - alone) / 2 <= 50


def share(before, after) -> float:
    [(old, new)] = [(before[cpu], after[cpu]) for cpu in after]
    return (new["cycles_empty_looks"] - old["cycles_empty_looks"]) / (new["cycles_total"] - old["cycles_total"])


def cpu_seconds(pid: int) -> float:
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("idle", ["spin", "pause", "sleep"])
def test_idle(idle):
    """All carry the same; only `sleep` leaves the core to others."""
    with Chain(lambda _: {"wire w": {"ports": "a b"}}, apus={"idle": idle}) as chain:
        chain.exercise()
        time.sleep(0.2)
        before, began = cpu_seconds(chain.daemon.pid), time.monotonic()
        time.sleep(1)
        used = (cpu_seconds(chain.daemon.pid) - before) / (time.monotonic() - began)
        stats = chain.daemon.settled_stats()
        print(f"{idle}: {used:.0%} of a core, round trip {statistics.median(round_trips(chain, 300)):.1f} us")
    assert oracle.check_conservation(stats) == []
    assert used < 0.35 if idle == "sleep" else used > 0.3
