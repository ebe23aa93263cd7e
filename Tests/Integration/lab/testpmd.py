"""testpmd between two vhost-user sockets: a forwarder to compare with, and to try the laboratory on.

With `legacy-ol-flags` net_vhost marks received packets the way it wants to send them, so that `io` mode keeps partial
checksums and superframes. The library still takes the length out of every superframe's seed on enqueue, which makes
this a forwarder that is wrong on purpose: TCP works, the oracle must object.

Debian package: dpdk-dev. Runs without huge pages.
"""
import pathlib
import subprocess
import time

from lab import owner, process
from lab.scope import Scope

_MULTI_SEGMENT = 0x8000   # RTE_ETH_TX_OFFLOAD_MULTI_SEGS


class Testpmd:
    """Context manager; `sockets` are two paths on which it listens."""
    __test__ = False   # for pytest, which takes the name for a test's

    def __init__(self, sockets, directory, lcores="0,1", boot_seconds=20):
        self.sockets, self.directory = sockets, pathlib.Path(directory)
        self.log = self.directory / "testpmd.log"
        self._lcores, self._boot_seconds = lcores, boot_seconds
        self._scope = Scope()

    def __enter__(self):
        try:
            self._launch()
        except BaseException:
            self._scope.close()
            raise
        return self

    def __exit__(self, *exception):
        self._scope.close()

    def _launch(self):
        devices = [word for i, path in enumerate(self.sockets)
                   for word in ("--vdev", f"net_vhost{i},iface={path},tso=1,legacy-ol-flags=1")]
        with self.log.open("wb") as log:
            child = process.spawn(
                ["dpdk-testpmd", "-l", self._lcores, "--no-huge", "-m", 384, "--no-pci",
                 "--file-prefix", owner.name("testpmd"), *devices, "--", "--forward-mode=io", "--auto-start",
                 "--nb-cores=1", "--total-num-mbufs=40000", f"--tx-offloads={_MULTI_SEGMENT:#x}", "--stats-period=60"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._scope.callback(process.stop, child)
        deadline = time.monotonic() + self._boot_seconds
        while not all(pathlib.Path(path).exists() for path in self.sockets):
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"testpmd does not listen:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
