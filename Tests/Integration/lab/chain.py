"""Two namespaces with the forwarder's taps, and whatever ports a test puts between them.

    left 10.0.0.1 ── tap a ── ... ── tap b ── right 10.0.0.2
"""

from lab import hugepages, owner, traffic
from lab.daemon import Daemon, binary
from lab.netns import Namespace
from lab.scope import Scope

LEFT, RIGHT = "10.0.0.1", "10.0.0.2"
_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
PACKET_PAGES = 96


class Chain:
    """Context manager. `sections(directory)` are the ports and wires beside `port a` and `port b`."""

    def __init__(self, sections, apus: dict | None = None, tap: dict | None = None, environment=None, timeout=10, mtu=1500):
        self._sections, self._apus, self._tap = sections, apus or {}, tap or {}
        self._environment, self._timeout, self._mtu = environment, timeout, mtu
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            enter = self._scope.enter_context
            enter(hugepages.Reserved(PACKET_PAGES))
            self.left, self.right = enter(Namespace("left")), enter(Namespace("right"))
            self.devices = {"a": (self.left, owner.device_name("a")), "b": (self.right, owner.device_name("b"))}
            self.directory = owner.temporary_directory()
            self._scope.callback(self._remove_directory)
            ports = {f"port {label}": {"driver": "tap", "interface": device, "netns": namespace.name, "mtu": self._mtu} | self._tap
                     for label, (namespace, device) in self.devices.items()}
            sections = ports | self._sections(self.directory)
            if self._apus:
                sections["apus"] = self._apus
            self.daemon = enter(Daemon(sections, binary(), self._environment))
            for (label, (namespace, device)), mac, peer_mac, address, peer in zip(
                    self.devices.items(), _MACS, _MACS[::-1], (LEFT, RIGHT), (RIGHT, LEFT)):
                namespace.configure(device, mac, [f"{address}/24"], {peer: peer_mac}, mtu=self._mtu)
        return self

    def __exit__(self, *exception):
        self._scope.close()

    def _remove_directory(self):
        import shutil
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, port: int = 5201, reverse=False) -> traffic.Path:
        ends = [(self.left, LEFT), (self.right, RIGHT)]
        (client, _), (server, address) = ends[::-1] if reverse else ends
        return traffic.Path(client, server, (address, port), (address, port), self._timeout)

    def exercise(self, bulk=2 << 20):
        """TCP both ways in bulk and in short, UDP one at a time and in bursts; every byte compared."""
        traffic.tcp_upload(self.path(), bulk)
        traffic.tcp_download(self.path(), bulk)
        traffic.tcp_short_connections(self.path(), 10)
        traffic.udp_echo(self.path(5202), 100, window=16)
