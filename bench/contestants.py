"""What forwards between two vhost-user sockets, and the peer that keeps it busy.

    peer (testpmd, macswap)      forwarder
      virtio-user 0  ───────────  vhost-user 0
      virtio-user 1  ───────────  vhost-user 1

The peer sends whatever it receives back by the port it came from, with its MAC addresses exchanged: a fixed number of
packets circles for ever, between two addresses on each side, so that a bridge has something to learn and to look up.
The forwarder polls one core, the peer another one, and nothing else does. With 256 entries the rings are as long as
QEMU's.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import core
from lab import owner, process
from lab.daemon import Daemon
from lab.scope import Scope

MEGABYTES = 128
# On their way at once, from each port, in bursts: the peer's ring has room for all of them, so that nothing is ever lost.
BURSTS = 6
RING = 256
_BURST = 32


class Testpmd:
    """Context manager: DPDK's own forwarder, interactive, under one prefix, with the vdevs given."""
    __test__ = False

    def __init__(self, label: str, vdevs: list[str], polling_core: int, other_core: int, options: list[str]):
        self._label, self._vdevs, self._options = label, vdevs, options
        self._cores = polling_core, other_core
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            self.directory = owner.temporary_directory()
            self._scope.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._prefix = owner.name(self._label)
            # What a killed EAL leaves.
            self._scope.callback(shutil.rmtree, f"/run/dpdk/{self._prefix}", ignore_errors=True)
            polling, other = self._cores
            self._log = open(self.directory / "log", "wb")
            self._scope.callback(self._log.close)
            # stdbuf: its prompt goes around the buffer that its answers are in.
            self._child = process.spawn(
                ["stdbuf", "-oL", "dpdk-testpmd", "--lcores", f"0@{other},1@{polling}", "-m", MEGABYTES, "--in-memory", "--single-file-segments", "--no-pci",
                 "--file-prefix", self._prefix, *(word for vdev in self._vdevs for word in ("--vdev", vdev)), "--",
                 "-i", "--nb-cores=1", "--total-num-mbufs=16384", f"--burst={_BURST}", f"--rxd={RING}", f"--txd={RING}", "--no-lsc-interrupt", "--disable-link-check",
                 *self._options],
                stdin=subprocess.PIPE, stdout=self._log, stderr=self._log)
            self._scope.callback(process.stop, self._child)
            self._wait_for_prompt()
        return self

    def __exit__(self, *exception):
        self._scope.close()

    @property
    def pid(self) -> int:
        return self._child.pid

    def say(self, *commands: str) -> str:
        """What it answers, until its prompt after the last command."""
        before = len(self.output())
        for command in commands:
            self._child.stdin.write(f"{command}\n".encode())
        self._child.stdin.flush()
        self._wait_for_prompt(len(commands), before)
        return self.output()[before:]

    def cycles(self) -> list[int]:
        return []

    def output(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def _wait_for_prompt(self, count: int = 1, since: int = 0):
        deadline = time.monotonic() + 60
        while self.output()[since:].count("testpmd>") < count:
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"testpmd does not answer:\n{self.output()[-3000:]}")
            time.sleep(0.02)


class Peer(Testpmd):
    """Sends back what it gets, and counts it."""

    def __init__(self, label: str, sockets: list[pathlib.Path], polling_core: int, other_core: int, bytes: int):
        vdevs = [f"net_virtio_user{number},path={path},queue_size={RING}" for number, path in enumerate(sockets)]
        super().__init__(label, vdevs, polling_core, other_core,
                         ["--forward-mode=macswap", "--port-topology=loop", f"--txpkts={bytes}", "--record-core-cycles"])

    def __enter__(self):
        super().__enter__()
        with self._scope.building():
            self._telemetry = self._scope.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            self._telemetry.settimeout(10)
            self._telemetry.connect(f"/run/dpdk/{self._prefix}/dpdk_telemetry.v2")
            self._telemetry.recv(16384)
        return self

    def begin(self):
        self.say("stop", f"start tx_first {BURSTS}")

    def received(self) -> int:
        """Packets the forwarder has delivered."""
        total = 0
        for port in range(2):
            self._telemetry.send(f"/ethdev/stats,{port}".encode())
            total += json.loads(self._telemetry.recv(16384))["/ethdev/stats"]["ipackets"]
        return total

    def busy(self) -> tuple[float, float]:
        """Seconds, so far, in which its core carried packets instead of looking for some; and when that was. A pause in the
        middle of a burst counts as that burst's."""
        before, asked = len(self.output()), time.monotonic()
        self.say("show fwd stats all")
        while not (found := re.search(r"total cycles=(\d+).* at (\d+) MHz", self.output()[before:])):
            if time.monotonic() > asked + 60:
                raise RuntimeError(f"testpmd does not say its cycles:\n{self.output()[-3000:]}")
            time.sleep(0.01)
        cycles, megahertz = map(int, found.groups())
        return cycles / (megahertz * 1e6), (asked + time.monotonic()) / 2


class TestpmdForwarder(Testpmd):
    def __init__(self, mode: str, polling_core: int, other_core: int):
        self.mode = mode
        self._here = owner.temporary_directory()
        self.sockets = [self._here / "v0", self._here / "v1"]
        vdevs = [f"net_vhost{number},iface={path}" for number, path in enumerate(self.sockets)]
        super().__init__(mode, vdevs, polling_core, other_core, [f"--forward-mode={mode}"])

    def __enter__(self):
        self._scope.callback(shutil.rmtree, self._here, ignore_errors=True)
        super().__enter__()
        with self._scope.building():
            self.say("start")
        return self


class Apus(Daemon):
    """A bridge, unless `joint` says wire."""

    def __init__(self, executable: pathlib.Path, polling_core: int, joint: str, environment: dict[str, str]):
        self._here = owner.temporary_directory()
        self.sockets = [self._here / "v0", self._here / "v1"]
        sections = {f"port v{number}": {"driver": "vhost-user", "path": path} for number, path in enumerate(self.sockets)}
        super().__init__({"apus": {"lcores": polling_core, "memory": f"{MEGABYTES}M", "hugepages": "on"}} | sections
                         | {f"{joint} main": {"ports": "v0 v1"}}, executable, environment)
        self._scope.callback(shutil.rmtree, self._here, ignore_errors=True)

    def output(self) -> str:
        return self.log()

    def cycles(self) -> list[int]:
        """Of its polling core: in rounds that carried packets, and in all."""
        [lcore] = self.stats()["lcores"].values()
        return [lcore["cycles_busy"], lcore["cycles_total"]]


class Pair:
    """Context manager: a forwarder with its peer. Paused but while it is measured."""

    def __init__(self, name: str, forwarder, bytes: int, cores: tuple[int, int], is_realtime: bool = False):
        self.name, self.forwarder, self._bytes, self._cores, self._is_realtime = name, forwarder, bytes, cores, is_realtime
        self._scope = Scope()
        # Of each measurement: cycles with packets, and all, where the forwarder says so; the share of its time in which the
        # peer had some.
        self.busy: list[list[int]] = []
        self.busy_of_peer: list[float] = []

    def __enter__(self):
        with self._scope.building():
            self._scope.enter_context(self.forwarder)
            polling, other = self._cores
            label = f"peer-{self.name.replace(' ', '-')}"
            try:
                self.peer = self._scope.enter_context(Peer(label, self.forwarder.sockets, other, other, self._bytes))
            except RuntimeError as error:
                raise RuntimeError(f"{self.name}: {error}\n{self._said()}") from error
            # Nobody stops cleanly while stopped.
            self._scope.callback(self.resume)
            for one in (self.forwarder, self.peer):
                core.prefer(one.pid)
            pollers = [core.Waiting(one.pid) for one in (self.forwarder, self.peer)]
            self._wait_until_it_circles()
            if self._is_realtime:
                for one, poller in zip((self.forwarder, self.peer), pollers):
                    self._scope.callback(core.make_ordinary, one.pid)
                    core.make_realtime(one.pid, poller.thread())
            self.pause()
        return self

    def _wait_until_it_circles(self, seconds: float = 20):
        """Before both ports are ready a forwarder may lose all there is: then the peer begins again."""
        deadline, before = time.monotonic() + seconds, 0
        while (now := self.peer.received()) < 50_000:
            if now == before:
                self.peer.begin()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not forward: {now} packets in {seconds} seconds\n{self._said()}")
            before = now
            time.sleep(1)

    def __exit__(self, *exception):
        self._scope.close()

    def _said(self) -> str:
        return f"The forwarder said:\n{self.forwarder.output()[-3000:]}"

    def pause(self):
        for one in (self.peer, self.forwarder):
            os.kill(one.pid, signal.SIGSTOP)

    def resume(self):
        for one in (self.forwarder, self.peer):
            os.kill(one.pid, signal.SIGCONT)

    def measure(self, settle: float, seconds: float) -> tuple[float, float]:
        """Packets a second, while nobody else polls these cores; and the share of the time that either poller had to wait
        for its core all the same."""
        self.resume()
        try:
            time.sleep(settle)
            busy, since = self.peer.busy()
            before = self.forwarder.cycles()
            waits = [core.Waiting(one.pid) for one in (self.forwarder, self.peer)]
            first, began = self._count()
            time.sleep(seconds)
            last, ended = self._count()
            waited = max(wait.share() for wait in waits)
            self.busy.append([now - then for now, then in zip(self.forwarder.cycles(), before)])
            busy_at_end, end = self.peer.busy()
            self.busy_of_peer.append((busy_at_end - busy) / (end - since))
        finally:
            self.pause()
        return (last - first) / (ended - began), waited

    def _count(self) -> tuple[int, float]:
        """The answer comes from a thread beside the peer's: the moment is known as well as the answer is quick."""
        before = time.monotonic()
        count = self.peer.received()
        return count, (before + time.monotonic()) / 2
