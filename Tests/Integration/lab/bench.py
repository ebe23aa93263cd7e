"""Two ends of a wire and the forwarder between them: the bench every case of the matrix is built on.

    left 10.0.0.1 ── tap a ── apus ── tap b ── right 10.0.0.2
                                      tap b ── right (router) ── veth without offloads ── far 10.0.0.2   (`forwarded`)

The NAT programs turn 10.0.0.100:8080 and :8081 into 10.0.0.2:5201 and :5202, and the answers back.
"""

import dataclasses
import os
import pathlib
import time

from lab import hugepages, owner
from lab.capture import Capture
from lab.daemon import REPOSITORY, Daemon, binary
from lab.netns import Namespace
from lab.scope import Scope
from lab.traffic import Path
from lab.uprobe import Uprobe

LEFT, RIGHT, VIRTUAL = "10.0.0.1", "10.0.0.2", "10.0.0.100"
TCP_PORT, UDP_PORT = 5201, 5202
_BEHIND = {TCP_PORT: 8080, UDP_PORT: 8081}
_LEFT_MAC, _RIGHT_MAC, _FICTIVE_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:ff"
_NEAR_MAC, _FAR_MAC = "02:00:00:00:01:01", "02:00:00:00:01:02"
PACKET_PAGES = 96  # 128 MB of packet memory and what EAL itself wants are tried with normal pages too


@dataclasses.dataclass(frozen=True)
class Case:
    """What one test varies. `program` none leaves the [xdp] section out; `deliver` is for both ports."""
    program: str = "none"
    mode: str = "lazy"
    deliver: str = "offload"
    forwarded: bool = False

    def __str__(self):
        return "-".join([self.program, self.mode, self.deliver] + ["forwarded"] * self.forwarded)

    @property
    def nat(self) -> bool:
        return self.program.startswith("nat")


class Bench:
    """Context manager. `departures` holds a capture of what each port's kernel sent into the forwarder, `arrivals` of
    what it delivered to each, and of what the far end got. Where the executable has no function to count
    (`count_calls=False`), `full_checksum_calls` is None."""

    def __init__(self, case: Case, executable: pathlib.Path | None = None, environment: dict[str, str] | None = None,
                 timeout: float = 10, count_calls: bool = True):
        self.case, self.timeout = case, timeout
        self._executable, self._environment = executable or binary(), environment
        self._count_calls = count_calls
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
        self.left, self.right = enter(Namespace("left")), enter(Namespace("right"))
        self.devices = {"a": (self.left, owner.device_name("a")), "b": (self.right, owner.device_name("b"))}
        self._uprobe = enter(Uprobe(self._executable)) if self._count_calls else None
        self.daemon = enter(Daemon(self._sections(), self._executable, self._environment))
        self._wait_for_devices()
        self._configure_left()
        if self.case.forwarded:
            self.server = enter(Namespace("far"))
            self._configure_router_and_far()
        else:
            self.server = self.right
            self._configure_right()
        self.departures = [enter(Capture(*place, outgoing=True)) for place in self.devices.values()]
        self.arrivals = [enter(Capture(*place)) for place in self.devices.values()]
        if self.case.forwarded:
            self.arrivals.append(enter(Capture(self.server, "far")))

    def _sections(self) -> dict[str, dict[str, object]]:
        sections = {f"port {label}": {"driver": "tap", "interface": device, "netns": namespace.name,
                                      "deliver": self.case.deliver}
                    for label, (namespace, device) in self.devices.items()}
        if self.case.program != "none":
            sections[f"xdp {self.case.program}"] = {
                "object": REPOSITORY / f".build/bpf/{self.case.program}.o", "ports": "a b",
                "checksum": self.case.mode, "verify": "kernel", "engine": os.environ.get("APUS_ENGINE", "jit")}
        return sections | {"wire w": {"ports": "a b"}}

    def _wait_for_devices(self):
        deadline = time.monotonic() + 3
        for namespace, device in self.devices.values():
            while not namespace.has_device(device):
                if time.monotonic() > deadline:
                    raise AssertionError(f"{device} did not appear in {namespace.name}\n{self.daemon.log()}")
                time.sleep(0.01)

    # macswap answers a frame's source with its destination: both ends have one address and know the other by none.

    @property
    def _peer_macs(self) -> tuple[str, str]:
        """What left and right take each other for."""
        return (_FICTIVE_MAC, _FICTIVE_MAC) if self.case.program == "macswap" else (_RIGHT_MAC, _LEFT_MAC)

    @property
    def _right_mac(self) -> str:
        return _LEFT_MAC if self.case.program == "macswap" else _RIGHT_MAC

    def _configure_left(self):
        peer = self._peer_macs[0]
        self.left.configure(self.devices["a"][1], _LEFT_MAC, [f"{LEFT}/24"], {RIGHT: peer, VIRTUAL: peer})

    def _configure_right(self):
        self.right.configure(self.devices["b"][1], self._right_mac, [f"{RIGHT}/24"], {LEFT: self._peer_macs[1]})

    def _configure_router_and_far(self):
        """Right owns no address; it routes between the tap and a veth on which its kernel must finish everything.

        The far end keeps its offloads: what comes back is partial and superframes, as from a guest.
        """
        self.right.ip(f"link add near type veth peer name far netns {self.server.name}")
        self.right.sysctl("net/ipv4/ip_forward", 1)
        self.right.offloads("near", tx=False, tso=False, gso=False, gro=False)
        self.server.offloads("far", rx=False, gro=False)
        self.right.configure("near", _NEAR_MAC, (), {RIGHT: _FAR_MAC})
        self.right.configure(self.devices["b"][1], self._right_mac, (), {LEFT: self._peer_macs[1]})
        self.right.ip(f"route add {RIGHT}/32 dev near", f"route add {LEFT}/32 dev {self.devices['b'][1]}")
        self.server.configure("far", _FAR_MAC, [f"{RIGHT}/24"], {LEFT: _NEAR_MAC})

    # What a test does with it

    @property
    def namespaces(self) -> list[Namespace]:
        return [self.left, self.right] + [self.server] * self.case.forwarded

    def path(self, port: int) -> Path:
        """From left to a port of the server, through the virtual address where a NAT is in between."""
        target = (VIRTUAL, _BEHIND[port]) if self.case.nat else (RIGHT, port)
        return Path(self.left, self.server, target, (RIGHT, port), self.timeout)

    @property
    def full_checksum_calls(self) -> int | None:
        return self._uprobe.hits if self._uprobe else None
