"""iperf3 between two namespaces, for speed; the bytes it sends are nobody's evidence."""

import json
import subprocess
import time

from lab import process
from lab.netns import Namespace
from lab.scope import Scope

_PORT = 5201
_LISTEN = "0A"


def gigabits_per_second(client: Namespace, server: Namespace, address: str, seconds: int) -> float:
    """What the server received, over TCP."""
    with Scope() as scope:
        listener = process.spawn(server.command("iperf3", "-s", "-1", "-B", address), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        scope.callback(process.stop, listener)
        _wait_until_it_listens(server)
        report = json.loads(client.call("iperf3", "-c", address, "-t", seconds, "-J", timeout=seconds + 10))
        return report["end"]["sum_received"]["bits_per_second"] / 1e9


def _wait_until_it_listens(server: Namespace):
    deadline = time.monotonic() + 5
    while not any(local.endswith(f":{_PORT:04X}") and state == _LISTEN for local, state in _sockets(server)):
        if time.monotonic() > deadline:
            raise RuntimeError("iperf3 does not listen")
        time.sleep(0.01)


def _sockets(namespace: Namespace) -> list[tuple[str, str]]:
    def read():
        with open("/proc/thread-self/net/tcp") as file:
            return [(fields[1], fields[3]) for fields in map(str.split, file.readlines()[1:])]
    return namespace.inside(read)


def udp(client: Namespace, server: Namespace, address: str, bits_per_second: int, seconds: int) -> tuple[int, int]:
    """Datagrams of 1000 bytes, numbered by the sender: how many were sent, and how many numbers the receiver missed."""
    with Scope() as scope:
        listener = process.spawn(server.command("iperf3", "-s", "-1", "-B", address), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        scope.callback(process.stop, listener)
        _wait_until_it_listens(server)
        report = json.loads(client.call("iperf3", "-u", "-c", address, "-b", bits_per_second, "-l", 1000, "-t", seconds, "-w", "4M",
                                        "--get-server-output", "-J", timeout=seconds + 10))
        total = report["end"]["sum"]
        return total["packets"], total["lost_packets"]


def udp_capacity(client: Namespace, server: Namespace, address: str) -> int:
    """Bits a second, by halving the interval seven times."""
    low, high = 0, 4_000_000_000
    for _ in range(7):
        rate = (low + high) // 2
        sent, lost = udp(client, server, address, rate, 1)
        # Below what was asked the sender is the bottleneck, not the path.
        if lost <= sent / 1000 and sent * 8000 > 0.9 * rate:
            low = rate
        else:
            high = rate
    return low
