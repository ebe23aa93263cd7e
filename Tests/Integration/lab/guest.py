"""Linux guests in QEMU: a virtual machine, its agent (../guest/agent.c) and what it captured.

    with Guest("a", [vhost_user("/run/x/a.sock", mac)], directory) as guest:
        guest.address("eth0", "10.7.0.1/24")
        job = guest.start("receive", port=5000)
        guest.wait(job)

Emulated (TCG), since nested virtualisation cannot be counted on: a guest boots in about four seconds.

Debian packages: qemu-system-x86, and those of ../guest/build.py.
"""
import contextlib
import dataclasses
import importlib.util
import pathlib
import socket
import struct
import subprocess
import time

from lab import process
from lab.capture import Frame
from lab.scope import Scope

_BUILD = pathlib.Path(__file__).resolve().parents[1] / "guest" / "build.py"

# Virtio feature bits (virtio 1.2, 5.1.3 and 6).
FEATURE_BITS = {
    "CSUM": 0, "GUEST_CSUM": 1, "CTRL_GUEST_OFFLOADS": 2, "MTU": 3, "MAC": 5, "GUEST_TSO4": 7, "GUEST_TSO6": 8,
    "GUEST_ECN": 9, "GUEST_UFO": 10, "HOST_TSO4": 11, "HOST_TSO6": 12, "HOST_ECN": 13, "HOST_UFO": 14, "MRG_RXBUF": 15,
    "STATUS": 16, "CTRL_VQ": 17, "MQ": 22, "INDIRECT_DESC": 28, "EVENT_IDX": 29, "VERSION_1": 32, "RING_PACKED": 34,
}

_HEADER = struct.Struct("<BBHHHH")   # virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset


class GuestError(Exception):
    """What the guest or QEMU said, with the end of the guest's console."""


class JobUnfinished(GuestError):
    pass


@dataclasses.dataclass(frozen=True)
class Nic:
    """A network device: what QEMU puts behind it, its MAC address, and device properties (csum="off", ...)."""
    chardev: str | None
    netdev: str
    mac: str
    properties: dict
    model: str = "virtio-net-pci"


def vhost_user(path, mac, queues=1, server=False, **properties):
    """A NIC on a vhost-user socket; QEMU connects, or listens where `server`. Properties: `guest_tso4="off"` etc."""
    listen = ",server=on,wait=off" if server else ""
    return Nic(f"socket,path={path}{listen}", f"vhost-user,queues={queues}", mac, properties)


def tap(interface, mac, model="virtio-net-pci", header=True, **properties):
    """A NIC on a tap device of the guest's namespace (made if missing): the peer is the host's own network stack. Without
    the virtio `header` the tap is a wire: only finished packets cross it."""
    header = "" if header else ",vnet_hdr=off"
    return Nic(None, f"tap,ifname={interface},script=no,downscript=no{header}", mac, properties, model)


def parse_capture(data):
    """The agent's records { le32 length, virtio_net_hdr, frame }."""
    frames, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        record = data[at + 4:at + 4 + length]
        if len(record) != length:
            raise ValueError("a capture ends inside a record")
        flags, gso_type, _, gso_size, start, offset = _HEADER.unpack_from(record)
        frames.append(Frame(record[_HEADER.size:], flags, gso_type, gso_size, start, offset))
        at += 4 + length
    return frames


def _boot_files():
    spec = importlib.util.spec_from_file_location("guest_build", _BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


class Guest:
    """One QEMU process. Every wait has a limit; leaving the `with` ends the process, whatever happened."""

    def __init__(self, name, nics, directory, namespace=None, cores=None, memory_mib=256, boot_seconds=60):
        """`namespace`: where its taps are. `cores`: the ones it may use; best not that of a poller."""
        self.name = name
        self.console = pathlib.Path(directory) / f"guest-{name}.console"
        self._nics, self._namespace, self._cores = nics, namespace, cores
        self._memory_mib, self._boot_seconds = memory_mib, boot_seconds
        self._scope = Scope()
        self._process = self._channel = None
        self._buffer = b""

    # -- life

    def __enter__(self):
        self._scope.callback(self._stop)
        try:
            self._launch()
            hello = self._line(self._boot_seconds)
            if not hello.startswith("hello "):
                raise self._error(f"said {hello!r} instead of hello")
        except BaseException:
            self._scope.close()
            raise
        return self

    def __exit__(self, *exception):
        self._scope.close()

    def _launch(self):
        self._channel, theirs = socket.socketpair()
        words = self._qemu(*_boot_files(), theirs.fileno())
        if self._cores:
            words = ["taskset", "--cpu-list", ",".join(map(str, self._cores)), *words]
        if self._namespace:
            words = self._namespace.command(*words)
        with theirs, self._log.open("wb") as log:
            self._process = process.spawn(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          pass_fds=[theirs.fileno()])

    # vhost-user backends map the guest's memory.
    _MACHINE = ["-M", "pc", "-smp", 1, "-object", "memory-backend-memfd,id=memory,size={memory}M,share=on",
                "-numa", "node,memdev=memory"]
    _BUS = "pci.0"   # where devices are, unless they say otherwise
    _KERNEL = ""   # what its command line has besides

    def _qemu(self, vmlinuz, initramfs, channel):
        words = [
            "qemu-system-x86_64", "-name", f"apus-{self.name}", "-accel", "tcg", "-cpu", "max,la57=off",
            "-m", self._memory_mib, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            *(str(word).format(memory=self._memory_mib, half=self._memory_mib // 2) for word in self._MACHINE),
            "-kernel", vmlinuz, "-initrd", initramfs, "-serial", f"file:{self.console}",
            "-append", f"console=ttyS0 loglevel=4 panic=-1 mitigations=off ipv6.disable_ipv6=1 {self._KERNEL}",
            # The agent's channel. vectors=0: without KVM, MSI-X ends QEMU 7.2 once vhost-user is in play.
            "-chardev", f"socket,id=agent,fd={channel}", "-device", f"virtio-serial-pci,vectors=0,bus={self._BUS}",
            "-device", "virtserialport,chardev=agent,nr=1",
        ]
        for i, nic in enumerate(self._nics):
            netdev = f"{nic.netdev},id=net{i}"
            if nic.chardev:
                words += ["-chardev", f"{nic.chardev},id=chr{i}"]
                netdev += f",chardev=chr{i}"
            properties = {"netdev": f"net{i}", "mac": nic.mac, "romfile": "", "bus": self._BUS} | nic.properties
            if nic.model == "virtio-net-pci":
                properties.setdefault("vectors", 0)
            device = ",".join([nic.model, *(f"{key}={value}" for key, value in properties.items())])
            words += ["-netdev", netdev, "-device", device]
        return words

    def _stop(self):
        if self._process:
            self._process.kill()   # nothing in there is worth a shutdown
            self._process.wait()
        if self._channel:
            self._channel.close()

    @property
    def _log(self):
        return self.console.with_suffix(".qemu")

    def _error(self, what, kind=GuestError):
        said = [f"guest {self.name}: {what}"]
        for path in (self._log, self.console):
            if path.exists() and path.stat().st_size:
                said += [f"--- end of {path}", path.read_text(errors="replace")[-3000:]]
        return kind("\n".join(said))

    # -- the agent's protocol: a line out, a line in, perhaps bytes behind it

    def _receive(self, deadline):
        self._channel.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            part = self._channel.recv(1 << 20)
        except TimeoutError:
            raise self._error("no answer in time") from None
        if not part:
            raise self._error(f"QEMU ended with {self._process.wait(5)}")
        self._buffer += part

    def _line(self, seconds):
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            self._receive(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def _bytes(self, count, seconds):
        deadline = time.monotonic() + seconds
        while len(self._buffer) < count:
            self._receive(deadline)
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def command(self, text, seconds=20):
        """(dictionary of the answer, its bytes). An "error" answer raises GuestError."""
        self._channel.settimeout(seconds)
        self._channel.sendall(text.encode() + b"\n")
        line = self._line(seconds)
        verdict, _, rest = line.partition(" ")
        if verdict != "ok":
            kind = JobUnfinished if line == "error job is not done" else GuestError
            raise self._error(f"{text!r}: {line}", kind)
        values = dict(word.partition("=")[::2] for word in rest.split())
        # Only `run` and `fetch` send bytes behind the line; job results also have a `bytes`.
        count = int(values["bytes"]) if text.split()[0] in ("run", "fetch") else 0
        return values, self._bytes(count, seconds)

    # -- set-up and questions

    def run(self, command, seconds=20):
        """Output of a busybox shell command, which must succeed."""
        values, output = self.command(f"run {{ {command}; }} 2>&1", seconds)
        if values["status"] != "0":
            raise self._error(f"{command!r} ended with {values['status']}: {output.decode(errors='replace')}")
        return output.decode(errors="replace")

    def address(self, device, address, mtu=1500):
        self.run(f"ip link set lo up; ip link set {device} mtu {mtu} up && ip address add {address} dev {device}")

    def neighbour(self, device, address, mac):
        self.run(f"arp -i {device} -s {address} {mac}")

    def forward(self, on=True):
        self.run(f"echo {int(on)} > /proc/sys/net/ipv4/ip_forward")

    def features(self, device="eth0"):
        """Names of the virtio features that were negotiated."""
        bits = self.run(f"cat /sys/class/net/{device}/device/features").strip()
        return {name for name, bit in FEATURE_BITS.items() if bits[bit] == "1"}

    def offloads(self, device="eth0"):
        """The kernel's device features, as `ethtool -k` names them inside: {"rx-gro": True, ...}."""
        return {name: value == "on" for name, value in self.command(f"feature {device}")[0].items()}

    def offload(self, device, name, on):
        self.command(f"feature {device} {name} {'on' if on else 'off'}")

    def native_xdp(self, device, on=True):
        """Attaches a program that passes everything in the driver's own mode, as `ip link set DEV xdpdrv` does."""
        self.command(f"xdp {device} {'on' if on else 'off'}")

    def driver_counters(self, device="eth0"):
        """What the driver counted: {"rx_packets": 0, "rx_bytes": 0, ...}."""
        names = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
        values = self.run("cat " + " ".join(f"/sys/class/net/{device}/statistics/{name}" for name in names))
        return dict(zip(names, map(int, values.split())))

    def counters(self):
        """/proc/net/snmp and netstat as {"TcpInCsumErrors": 0, ...}."""
        values = {}
        lines = self.run("cat /proc/net/snmp /proc/net/netstat").splitlines()
        for names, numbers in zip(lines[::2], lines[1::2]):
            group = names.split(":")[0]
            values |= {group + name: int(number) for name, number in zip(names.split()[1:], numbers.split()[1:])}
        return values

    # -- jobs

    def start(self, kind, **options):
        """Starts a job (see agent.c) and returns its number; what listens does so when this returns."""
        words = "".join(f" {key}={value}" for key, value in options.items())
        return int(self.command(f"start {kind}{words}")[0]["job"])

    def wait(self, job, seconds=60):
        return self.command(f"wait job={job} seconds={seconds}", seconds + 10)[0]

    def kill(self, job):
        self.command(f"kill job={job}")

    @contextlib.contextmanager
    def job(self, kind, **options):
        """A job that is over when the block is, however that ends."""
        number = self.start(kind, **options)
        try:
            yield number
        finally:
            self.kill(number)

    def capture(self, **options):
        """A job that captures received packets; `captured` waits for all of them."""
        return self.job("capture", **({"dev": "eth0"} | options))

    def captured(self, job, seconds=60):
        self.wait(job, seconds)
        return parse_capture(self.command(f"fetch job={job}", 60)[1])
