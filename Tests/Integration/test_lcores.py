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
    """The lcore looks at all of its taps together, and after a look waits for 64 times as long as that took or for 40
    microseconds: so looks in vain cost 1.6 % of it at most, where a look takes no longer than 0.6 microseconds.

    How long it does take is the machine's; 'make bench' holds both bounds against the clock. Here: the number of looks
    cannot grow with the number of taps, all of them are seen, and no frame waits for anything but the next look.
    """
    def beside(directory):
        return {"port x": {"driver": "vhost-user", "path": directory / "x.sock"}, "port y": {"driver": "null"},
                "wire w": {"ports": "a b"}, "wire v": {"ports": "x y"}}
    with Chain(lambda _: {"wire w": {"ports": "a b"}}) as chain:
        alone = statistics.median(round_trips(chain))
        assert [lcore["empty_looks"] for lcore in chain.daemon.stats()["lcores"].values()] == [0], "nothing else wants the core"
    with Chain(beside) as chain:
        [before], began = chain.daemon.stats()["lcores"].values(), time.monotonic()
        time.sleep(1)
        [after], ended = chain.daemon.stats()["lcores"].values(), time.monotonic()
        paced = statistics.median(round_trips(chain))
        chain.exercise()
        stats = chain.daemon.settled_stats()
    assert oracle.check_conservation(stats) == []
    looks = after["empty_looks"] - before["empty_looks"]
    cycles = after["cycles_empty_looks"] - before["cycles_empty_looks"]
    total = after["cycles_total"] - before["cycles_total"]
    microseconds = cycles / looks * (ended - began) * 1e6 / total
    print(f"one look: {microseconds:.2f} us; looks in vain: {looks}, {cycles / total:.2%} of the lcore; "
          f"round trip {alone:.1f} us alone, {paced:.1f} us beside others")
    pause = min(64 * microseconds, 40)
    assert 0 < looks <= 1.2 * (ended - began) * 1e6 / pause
    assert paced < 5000, "a frame waited for a timer, not for a look"


@pytest.mark.parametrize("idle", ["spin", "pause", "sleep"])
def test_idle(idle):
    """All carry the same; only `sleep` leaves the core to others: it wakes at most every 50 microseconds."""
    with Chain(lambda _: {"wire w": {"ports": "a b"}}, apus={"idle": idle}) as chain:
        chain.exercise()
        time.sleep(0.2)
        before, began = chain.daemon.stats()["lcores"], time.monotonic()
        time.sleep(1)
        after, seconds = chain.daemon.stats()["lcores"], time.monotonic() - began
        stats = chain.daemon.settled_stats()
        [polls] = [after[cpu]["polls"] - before[cpu]["polls"] for cpu in after]
        print(f"{idle}: {polls / seconds:.0f} polls a second, round trip {statistics.median(round_trips(chain, 300)):.1f} us")
    assert oracle.check_conservation(stats) == []
    assert polls > 0 and (polls <= 20_000 * seconds) == (idle == "sleep")
