"""One test's traffic: what every case sends, and how a case is run."""

import contextlib

from lab import traffic
from lab.bench import TCP_PORT, UDP_PORT, Bench

BULK_BYTES = 8 << 20


def exercise(bench: Bench, bulk: int = BULK_BYTES):
    """TCP in bulk both ways, connections that are mostly handshake, UDP one at a time and in bursts."""
    tcp, udp = bench.path(TCP_PORT), bench.path(UDP_PORT)
    traffic.tcp_upload(tcp, bulk)
    traffic.tcp_download(tcp, bulk)
    traffic.tcp_short_connections(tcp, 20)
    traffic.udp_echo(udp, 100, window=1)
    traffic.udp_echo(udp, 500, window=32)


def touch(bench: Bench):
    """The least that shows whether checksums are right. Where they are not, a kernel that verifies lets nothing pass."""
    for attempt in (lambda: traffic.tcp_upload(bench.path(TCP_PORT), 1 << 20),
                    lambda: traffic.udp_echo(bench.path(UDP_PORT), 20, window=1)):
        with contextlib.suppress(traffic.TrafficFailed):
            attempt()
