"""Open vSwitch with DPDK, private: its own database, sockets and run directory, nothing of the system's service.

Debian's packages are downloaded and unpacked, not installed: installing them starts a service and takes over the
alternatives of the host. What they need besides is in the Makefile's list.
"""

import os
import pathlib
import subprocess
import time

from lab import process
from lab.scope import Scope

PACKAGES = ["openvswitch-common", "openvswitch-switch", "openvswitch-switch-dpdk"]


def unpacked(directory: pathlib.Path) -> pathlib.Path:
    """The root of the unpacked packages, downloaded where they are not there yet."""
    root = directory / "root"
    if not (root / "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk").exists():
        directory.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:
            # As root, apt says that it does not change its user for the download: nothing is wrong with that.
            subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], check=True, cwd=directory)
        for archive in sorted(directory.glob("openvswitch-*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive, root], check=True)
            archive.unlink()
    return root


class OpenVSwitch:
    """Context manager: one bridge with its normal action, two vhost-user ports that listen on `sockets`."""

    def __init__(self, root: pathlib.Path, directory: pathlib.Path, polling_core: int, other_core: int, megabytes: int):
        self._root, self._directory = root, directory
        self._cores = polling_core, other_core
        self._megabytes = megabytes
        # OVS listens in its run directory and nowhere else.
        self.sockets = [directory / "v0", directory / "v1"]
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            self._start()
        return self

    def __exit__(self, *exception):
        self._scope.close()

    @property
    def pid(self) -> int:
        return self._switch.pid

    def cycles(self) -> list[int]:
        return []

    def _start(self):
        # Paths are built into the programs, each with a variable that overrides it.
        places = {f"OVS_{kind}DIR": str(self._directory) for kind in ("RUN", "LOG", "DB", "SYSCONF")}
        self._environment = os.environ | places | {"OVS_PKGDATADIR": str(self._root / "usr/share/openvswitch")}
        database, socket = self._directory / "conf.db", f"unix:{self._directory}/db.sock"
        self._run("bin/ovsdb-tool", "create", database, self._root / "usr/share/openvswitch/vswitch.ovsschema")
        self._spawn("sbin/ovsdb-server", database, f"--remote=p{socket}", "--pidfile", "--log-file", "--verbose=console:off")
        _wait_for(self._directory / "db.sock")
        polling, other = self._cores
        options = {"dpdk-init": "true", "pmd-cpu-mask": hex(1 << polling), "dpdk-lcore-mask": hex(1 << other),
                   "dpdk-socket-mem": str(self._megabytes),
                   # It forgets no flow while it is not its turn.
                   "max-idle": "600000",
                   "dpdk-extra": f"--file-prefix={self._directory.name} --in-memory --no-pci --no-telemetry"}
        self._configure(socket, "--no-wait", "init")
        self._configure(socket, "--no-wait", "set", "Open_vSwitch", ".", *(f"other_config:{key}=\"{value}\"" for key, value in options.items()))
        self._switch = self._spawn("lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", socket, "--pidfile", "--log-file", "--verbose=console:off")
        self._configure(socket, "--timeout=20", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for port in ("v0", "v1"):
            self._configure(socket, "--timeout=20", "add-port", "br0", port, "--", "set", "Interface", port, "type=dpdkvhostuser")
        for path in self.sockets:
            _wait_for(path)

    def _run(self, program: str, *words):
        subprocess.run([self._root / "usr" / program, *map(str, words)], check=True, env=self._environment, stdout=subprocess.DEVNULL)

    def _configure(self, socket: str, *words):
        self._run("bin/ovs-vsctl", f"--db={socket}", *words)

    def _spawn(self, program: str, *words) -> subprocess.Popen:
        child = process.spawn([self._root / "usr" / program, *words], env=self._environment, cwd=self._directory,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._scope.callback(process.stop, child)
        return child

    def output(self) -> str:
        return (self._directory / "ovs-vswitchd-dpdk.log").read_text(errors="replace")


def _wait_for(path: pathlib.Path, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Open vSwitch did not make {path}")
        time.sleep(0.02)
