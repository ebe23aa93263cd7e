"""A guest that is a host of its own: two NUMA nodes with a CPU each, network cards behind an IOMMU, and the forwarder in it.

    node 0: CPU 0, and the slot ON_NODE[0]            node 1: CPU 1, and the slot ON_NODE[1]

The forwarder with all it links is on a disk; DPDK drives the cards through VFIO.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

from lab.daemon import ini, installed_libraries
from lab.guest import Guest, GuestError

# The property that puts a card into a node's slot.
ON_NODE = [{"bus": "slot0"}, {"bus": "slot1"}]
# The drivers that are loaded as plug-ins; vhost and virtual devices are linked.
_DRIVERS = ["bus_pci", "bus_vdev", "mempool_ring", "net_e1000", "net_virtio", "net_null"]
_MODULES = ["virtio_blk", "irqbypass", "vfio", "vfio_virqfd", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci"]
_ROOT = "/root"


class Host(Guest):
    """`nics` as a guest's, each in a slot. Boots and mounts the disk; hugepages are the caller's to reserve."""

    _MACHINE = ["-M", "q35", "-smp", 2, "-object", "memory-backend-ram,id=near,size={half}M", "-object", "memory-backend-ram,id=remote,size={half}M",
                "-numa", "node,nodeid=0,cpus=0,memdev=near", "-numa", "node,nodeid=1,cpus=1,memdev=remote",
                "-device", "intel-iommu",
                *(word for node in (0, 1) for word in ("-device", f"pxb-pcie,id=bus{node},bus_nr={64 + 64 * node},numa_node={node},bus=pcie.0",
                                                       "-device", f"pcie-root-port,id=slot{node},bus=bus{node},slot={node + 1}"))]
    _BUS = "pcie.0"
    _KERNEL = "intel_iommu=on iommu=pt"

    def __init__(self, name, nics, directory, executable, namespace=None, memory_mib=1024):
        super().__init__(name, nics, directory, namespace=namespace, memory_mib=memory_mib, boot_seconds=120)
        self._disk = pathlib.Path(directory) / f"host-{name}.img"
        self._executable = executable

    def __enter__(self):
        _build_disk(self._disk, self._executable)
        super().__enter__()
        try:
            self._set_up()
        except BaseException:
            self._scope.close()
            raise
        return self

    def _qemu(self, vmlinuz, initramfs, channel):
        return [*super()._qemu(vmlinuz, initramfs, channel),
                "-drive", f"file={self._disk},if=none,id=disk,format=raw,readonly=on", "-device", f"virtio-blk-pci,drive=disk,vectors=0,bus={self._BUS}"]

    def _set_up(self):
        for module in _MODULES:
            self.run(f"insmod /lib/{module}.ko" + (" allow_unsafe_interrupts=1" if module == "vfio_iommu_type1" else ""))
        mounts = [f"mkdir {_ROOT}; mount -t ext4 -o ro /dev/vda {_ROOT}"]
        mounts += [f"mount --bind /{name} {_ROOT}/{name}" for name in ("proc", "sys", "dev")]
        mounts += [f"mount -t tmpfs none {_ROOT}/{name}" for name in ("run", "tmp")]
        mounts += ["mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages"]
        self.run("; ".join(mounts))

    def hugepages(self, *counts):
        """Reserved on each node, 2 MB each."""
        for node, count in enumerate(counts):
            self.run(f"echo {count} > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages")

    def cards(self) -> list[str]:
        """PCI addresses of the network cards, in the order of `nics`."""
        found = {}
        for line in self.run("for d in /sys/bus/pci/devices/*; do echo $d $(cat $d/class) $(cat $d/numa_node); done").splitlines():
            path, kind, node = line.split()
            if kind == "0x020000":
                found[int(node)] = pathlib.PurePath(path).name
        return [found[ON_NODE.index({"bus": nic.properties["bus"]})] for nic in self._nics]

    def take(self, address: str):
        """Gives a card to whoever opens it."""
        device = f"/sys/bus/pci/devices/{address}"
        self.run(f"echo vfio-pci > {device}/driver_override; "
                 f"[ ! -e {device}/driver ] || echo {address} > {device}/driver/unbind; echo {address} > /sys/bus/pci/drivers_probe; test -e {device}/driver")

    @contextlib.contextmanager
    def apus(self, sections: dict):
        """Forwards while the block runs, which has its log in `self.said` afterwards."""
        self._start_apus(sections)
        try:
            yield
        finally:
            self.said = self._stop_apus()

    def _start_apus(self, sections: dict):
        common = {"name": "host", "stats-socket": "/run/apus.sock"}
        text = ini(sections | {"apus": common | sections["apus"]})
        lines = text.replace("\n", "\\n")   # a command is one line
        self.run(f"printf '%b' '{lines}' > {_ROOT}/tmp/apus.ini")
        self.run(f"chroot {_ROOT} /apus /tmp/apus.ini > /tmp/apus.log 2>&1 & echo $! > /tmp/apus.pid")
        deadline = time.monotonic() + 60
        while "forwarding on CPU" not in self._log_of_apus():
            if time.monotonic() > deadline or not self._is_running():
                raise GuestError(f"apus does not forward:\n{self._log_of_apus()}")
            time.sleep(0.2)

    def _is_running(self) -> bool:
        # What has ended stays: nobody waits for it.
        return self.command("run grep -q 'State:.[^Z]' /proc/$(cat /tmp/apus.pid)/status")[0]["status"] == "0"

    def _log_of_apus(self) -> str:
        return self.run("cat /tmp/apus.log")

    def stats(self) -> dict:
        return json.loads(self.run(f"chroot {_ROOT} /apusctl stats --json --socket /run/apus.sock"))

    def _stop_apus(self, seconds=60) -> str:
        self.run("kill -TERM $(cat /tmp/apus.pid)")
        deadline = time.monotonic() + seconds
        while self._is_running():
            if time.monotonic() > deadline:
                raise GuestError(f"apus does not end:\n{self._log_of_apus()}")
            time.sleep(0.1)
        return self._log_of_apus()


def _build_disk(image: pathlib.Path, executable: pathlib.Path):
    root = image.with_suffix(".root")
    try:
        for name in ("proc", "sys", "dev", "run", "tmp"):
            (root / name).mkdir(parents=True)
        for name in ("lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        folder, = pathlib.Path("/usr/lib").glob("*/dpdk/pmds-*")
        drivers = [path for name in _DRIVERS for path in folder.glob(f"librte_{name}.so*")]
        tools = [pathlib.Path(executable), pathlib.Path(executable).with_name("apusctl")]
        for path in [*drivers, *(needed for one in [*tools, *drivers] for needed in _needed(one))]:
            _copy(path, root)
        (root / "var").mkdir()
        (root / "var/run").symlink_to("/run")
        for path in tools:
            shutil.copy(path, root / path.name)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, image, "400M"], check=True, capture_output=True, env={"PATH": "/usr/sbin:/sbin"})
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _copy(path: pathlib.Path, root: pathlib.Path):
    """A file, or a link and the file behind it: a driver that is there under two names would be loaded twice."""
    folder = root / path.parent.resolve().relative_to("/")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    if not target.exists() and not target.is_symlink():
        shutil.copy(path, target, follow_symlinks=False)
    if path.is_symlink():
        _copy(path.parent / path.readlink(), root)


def _needed(path: pathlib.Path) -> list[pathlib.Path]:
    """Libraries, the loader among them, by the paths they are looked for at: the system's, for an emulated processor."""
    said = subprocess.run(["ldd", path], check=True, capture_output=True, text=True, env=os.environ | installed_libraries()).stdout
    return [pathlib.Path(found) for found in re.findall(r"(/\S+) \(0x", said)]
