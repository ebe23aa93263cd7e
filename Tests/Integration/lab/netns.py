"""Network namespaces: made, configured, looked into, removed."""

import ctypes
import json
import os
import socket
import threading

from lab import owner, process
from lab.scope import Scope

_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A named namespace without IPv6, so that no neighbour discovery mixes with what a test counts."""

    def __init__(self, label: str):
        self.name = owner.name(label)
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            self._scope.callback(self._remove)
            process.call("ip", "netns", "add", self.name)
            self.sysctl("net/ipv6/conf/all/disable_ipv6", 1)
            self.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
            self.ip("link set lo up")
        return self

    def __exit__(self, *exception):
        self._scope.close()

    def _remove(self):
        if not self._path.exists():
            return
        for pid in process.call("ip", "netns", "pids", self.name).split():
            try:
                os.kill(int(pid), 9)
            except ProcessLookupError:
                pass
        process.call("ip", "netns", "del", self.name)

    @property
    def _path(self):
        return owner.NAMESPACES / self.name

    # Configuration

    def command(self, *words) -> list[str]:
        """nsenter, not `ip netns exec`, which also makes a mount namespace and another sysfs."""
        return ["nsenter", f"--net={self._path}", *map(str, words)]

    def call(self, *words, **options) -> str:
        return process.call(*self.command(*words), **options)

    def ip(self, *commands: str):
        """Commands of `ip`, all in one go."""
        process.call("ip", "-n", self.name, "-batch", "-", feed="\n".join(commands) + "\n")

    def has_device(self, device: str) -> bool:
        return any(name == device for _, name in self.inside(socket.if_nameindex))

    def configure(self, device: str, mac: str, addresses=(), neighbours: dict[str, str] | None = None, mtu=1500):
        """Brings a device up with fixed addresses and neighbours, so that nothing but the test's traffic is sent."""
        self.ip(f"link set {device} address {mac} mtu {mtu} up",
                *(f"address add {address} dev {device}" for address in addresses),
                *(f"neighbour replace {address} lladdr {peer} dev {device} nud permanent"
                  for address, peer in (neighbours or {}).items()))

    def offloads(self, device: str, **features: bool):
        """`offloads("eth0", tx=False, tso=False)`; see ethtool -K."""
        words = [word for feature, on in features.items() for word in (feature, "on" if on else "off")]
        self.call("ethtool", "-K", device, *words)

    def sysctl(self, path: str, value):
        def write():
            with open(f"/proc/sys/{path}", "w") as file:
                file.write(str(value))
        self.inside(write)

    # Looking in

    def inside(self, work):
        """Runs `work` in a thread that has entered the namespace. Sockets it opens stay there."""
        result = []

        def enter():
            try:
                with open(self._path) as handle:
                    if _libc.setns(handle.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns {self.name}")
                result.append((work(), None))
            except BaseException as error:  # carried to the caller
                result.append((None, error))
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        value, error = result[0]
        if error:
            raise error
        return value

    def socket(self, *arguments) -> socket.socket:
        return self.inside(lambda: socket.socket(*arguments))

    def counters(self) -> dict[str, int]:
        """SNMP counters as `nstat` names them: TcpInCsumErrors, UdpInCsumErrors, IpInHdrErrors, IpExtInCsumErrors..."""
        def read():
            lines = []
            for path in ("/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"):
                with open(path) as file:
                    lines += file.read().splitlines()
            return lines
        lines = self.inside(read)
        counters = {}
        for names, values in zip(lines[::2], lines[1::2]):
            group, names = names.split(":")
            counters.update((group + key, int(value)) for key, value in zip(names.split(), values.split(":")[1].split()))
        return counters

    def device_counters(self, device: str) -> dict[str, int]:
        """The kernel's own count of a device: rx_packets, tx_packets, rx_dropped, tx_dropped, ..."""
        [link] = json.loads(process.call("ip", "-n", self.name, "-json", "-s", "link", "show", "dev", device))
        stats = link["stats64"]
        return {f"{way}_{key}": value for way in ("rx", "tx") for key, value in stats[way].items()}
