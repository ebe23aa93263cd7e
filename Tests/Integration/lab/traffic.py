"""Traffic between two namespaces whose every byte is known, with sockets opened inside them.

One shape for TCP: the client sends a request and closes its side, the server answers with what `reply` makes of it.
Each side has a deadline, so that a path that loses everything costs seconds, not the run.
"""

import contextlib
import dataclasses
import hashlib
import random
import socket
import struct
import threading
import time

from lab.netns import Namespace
from lab.scope import shielded


class TrafficFailed(AssertionError):
    pass


@dataclasses.dataclass(frozen=True)
class Path:
    """`target` is where the client sends to; `listen` is where the server gets it (not the same behind a NAT)."""
    client: Namespace
    server: Namespace
    target: tuple[str, int]
    listen: tuple[str, int]
    timeout: float = 10  # seconds, for each wait


def pseudo_random(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


def tcp_upload(path: Path, length: int):
    data = pseudo_random(length, seed=length)
    _tcp(path, [(data, hashlib.sha256(data).digest())], lambda request: hashlib.sha256(request).digest())


def tcp_download(path: Path, length: int):
    data = pseudo_random(length, seed=length + 1)
    _tcp(path, [(b"send", data)], lambda _: data)


def tcp_short_connections(path: Path, count: int):
    """Requests of 1 to 3000 bytes, odd and even, each echoed backwards."""
    requests = [pseudo_random(random.Random(index).randint(1, 3000), seed=index) for index in range(count)]
    _tcp(path, [(request, request[::-1]) for request in requests], lambda request: request[::-1])


def udp_echo(path: Path, count: int, window: int):
    """Numbered datagrams of all lengths up to 1472 bytes, `window` in flight; none may be lost or changed, either way."""
    with _sockets(path, socket.SOCK_DGRAM) as (server, client):
        seen = set()

        def serve():
            while len(seen) < count:
                data, peer = server.recvfrom(2048)
                if not data:
                    break
                seen.add(data)
                server.sendto(data, peer)

        def wake():
            server.sendto(b"", path.listen)
        with _served(serve, path, wake):
            for first in range(0, count, window):
                sent = {_datagram(number) for number in range(first, min(first + window, count))}
                for data in sent:
                    client.sendto(data, path.target)
                received = {client.recv(2048) for _ in sent}
                if received != sent:
                    raise TrafficFailed(f"{len(sent - received)} of {len(sent)} datagrams changed on the way")
    if seen != {_datagram(number) for number in range(count)}:
        raise TrafficFailed(f"server saw {len(seen)} of {count} datagrams as sent")


def _datagram(number: int) -> bytes:
    return struct.pack("!I", number) + pseudo_random(number * 7919 % 1469, seed=number)


def _tcp(path: Path, exchanges: list[tuple[bytes, bytes]], reply):
    with _sockets(path, socket.SOCK_STREAM) as (listener, _):
        listener.listen(8)
        waiting = [listener]

        def serve():
            for _ in exchanges:
                connection, _ = listener.accept()
                waiting[1:] = [connection]
                with connection:
                    connection.settimeout(path.timeout)
                    connection.sendall(reply(_read_all(connection)))

        def wake():
            for end in waiting:
                end.shutdown(socket.SHUT_RDWR)
        with _served(serve, path, wake):
            for request, expected in exchanges:
                with path.client.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                    client.settimeout(path.timeout)
                    client.connect(path.target)
                    client.sendall(request)
                    client.shutdown(socket.SHUT_WR)
                    answer = _read_all(client)
                if answer != expected:
                    raise TrafficFailed(f"{len(request)} bytes sent, the {len(answer)} bytes that came back are wrong")


def _read_all(connection: socket.socket) -> bytes:
    parts = []
    deadline = time.monotonic() + 3 * connection.gettimeout()
    while part := connection.recv(1 << 20):
        parts.append(part)
        if time.monotonic() > deadline:
            raise TrafficFailed(f"{sum(map(len, parts))} bytes so far, too slowly")
    return b"".join(parts)


@contextlib.contextmanager
def _sockets(path: Path, kind: socket.SocketKind):
    """A bound server socket and a client socket."""
    with path.server.socket(socket.AF_INET, kind) as server, path.client.socket(socket.AF_INET, kind) as client:
        for end in (server, client):
            end.settimeout(path.timeout)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(path.listen)
        yield server, client


@contextlib.contextmanager
def _served(serve, path: Path, wake):
    """The server's loop in a thread beside the client's; failure of either is one TrafficFailed.

    The thread has ended before anybody closes its sockets (`wake` ends its waits): a wait that starts on the number
    of a closed descriptor would keep alive whatever got that number next, and once did with a pipe.
    """
    failures = []

    def run():
        try:
            serve()
        except Exception as error:
            failures.append(f"server: {error!r}")
    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
        yield
        thread.join(path.timeout + 1)
    except OSError as error:
        failures.append(f"client: {error!r}")
    finally:
        late = thread.is_alive()
        with shielded():
            while thread.is_alive():
                with contextlib.suppress(OSError):
                    wake()
                thread.join(0.01)
    if failures or late:
        raise TrafficFailed(f"to {path.target[0]}:{path.target[1]}: {'; '.join(failures) or 'the server does not end'}")
