"""Two guests on the vhost-user sockets of one forwarder, what they send each other, and the judge of what arrived.

    a 10.7.0.1 ── vhost-user ── forwarder ── vhost-user ── 10.7.0.2 b
                                              b 10.8.0.1 ── NIC without offloads ── tap 10.8.0.2 far   (`outward`)
"""
import collections
import contextlib
import os
import shutil
import threading

from lab import hugepages, oracle, owner
from lab.bench import PACKET_PAGES
from lab.capture import Capture
from lab.daemon import REPOSITORY, Daemon, binary, polling_core, present
from lab.guest import Guest, JobUnfinished, tap, vhost_user
from lab.netns import Namespace
from lab.scope import Scope
from lab.traffic import TrafficFailed
from lab.uprobe import Uprobe

MTU = 1500
_MAC = {"a": "52:54:00:0a:00:01", "b": "52:54:00:0a:00:02"}
_OUTWARD_MAC, _FAR_MAC = "52:54:00:0a:00:03", "52:54:00:0a:00:04"
_ADDRESS = {"a": "10.7.0.1", "b": "10.7.0.2"}
_OUTWARD, _FAR = "10.8.0.1", "10.8.0.2"
_PORTS = range(5000, 65536)
_WRONG = ("TcpInCsumErrors", "UdpInCsumErrors", "IpInHdrErrors", "IpExtInCsumErrors", "IcmpInCsumErrors")


class Apus:
    """Context manager: the daemon with two vhost-user ports on `sockets`, wired, and the reading program on both."""

    def __init__(self, sockets, directory, deliver_to_b="offload", executable=None, environment=None):
        ports = {f"port {name}": {"driver": "vhost-user", "path": path, "role": "server"}
                 for name, path in zip("ab", sockets)}
        ports["port b"]["deliver"] = deliver_to_b
        count = {"object": REPOSITORY / ".build/bpf/count.o", "ports": "a b", "checksum": "lazy", "verify": "kernel",
                 "engine": os.environ.get("APUS_ENGINE", "jit")}
        self._sections = ports | {"xdp count": count, "wire w": {"ports": "a b"}}
        self._executable = present(executable, "APUS_PLANTED_BINARY") if executable else binary()
        self._environment = environment
        self._scope = Scope()

    def __enter__(self):
        try:
            enter = self._scope.enter_context
            enter(hugepages.Reserved(PACKET_PAGES))
            self._uprobe = enter(Uprobe(self._executable))
            self.daemon = enter(Daemon(self._sections, self._executable, self._environment))
        except BaseException:
            self._scope.close()
            raise
        return self

    def __exit__(self, *exception):
        self._scope.__exit__(*exception)

    def stats(self):
        return self.daemon.settled_stats()

    def deliver_to_b(self, how):
        """`offload` or `full`, from now on."""
        self.daemon.ask(f"port set b deliver={how}")

    def findings(self):
        """Where its counters contradict the uprobe, or themselves."""
        stats = self.stats()
        found = {"calls": oracle.check_calls(stats, self.full_checksum_calls),
                 "conservation": oracle.check_conservation(stats)}
        return {kind: what for kind, what in found.items() if what}

    @property
    def full_checksum_calls(self):
        return self._uprobe.hits


class Pair:
    """Guests `a` and `b`, with all offloads the forwarder agrees to.

    `forwarder(sockets, directory)` is Apus, Testpmd or alike. With `outward`, b also routes to a tap in the namespace
    `far` through a NIC without any offload: b's kernel has to finish what it received unfinished, and the kernel of
    this machine, which verifies, is the receiver. `b` are properties of b's NIC (guest_tso4="off").
    """

    def __init__(self, forwarder, outward=False, b=None):
        self._forwarder, self._outward, self._properties_of_b = forwarder, outward, b or {}
        self._scope = Scope()
        # Each exchange has its own: a ring keeps what came while its device was down, and delivers it later.
        self._ports = iter(_PORTS)

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self._scope.close()
            raise
        return self

    def __exit__(self, *exception):
        self._scope.__exit__(*exception)

    def _build(self):
        enter = self._scope.enter_context
        self.directory = owner.temporary_directory()
        self._scope.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.far = enter(Namespace("far")) if self._outward else None
        sockets = {name: self.directory / f"{name}.sock" for name in "ab"}
        self.forwarder = enter(self._forwarder(list(sockets.values()), self.directory))
        nics = {name: [vhost_user(path, _MAC[name], **(self._properties_of_b if name == "b" else {}))]
                for name, path in sockets.items()}
        if self.far:
            nics["b"].append(tap(self._far_device, _OUTWARD_MAC, csum="off", guest_csum="off"))
        cores = os.sched_getaffinity(0) - {polling_core()}
        self.a = enter(Guest("a", nics["a"], self.directory, cores=cores))
        self.b = enter(Guest("b", nics["b"], self.directory, cores=cores, namespace=self.far))
        for guest in (self.a, self.b):
            # The guest's own GRO would make superframes of what arrived in pieces.
            guest.offload("eth0", "rx-gro", False)
            # TCP sizes superframes by its pace, which is what the emulated processor and the machine's load allow.
            guest.run("echo 44 > /proc/sys/net/ipv4/tcp_min_tso_segs")
            guest.address("eth0", f"{_ADDRESS[guest.name]}/24", MTU)
            guest.neighbour("eth0", _ADDRESS[self.other(guest).name], _MAC[self.other(guest).name])
        if self.far:
            self._route_outward()

    @property
    def _far_device(self):
        return owner.device_name("f")

    def _route_outward(self):
        self.b.address("eth1", f"{_OUTWARD}/24", MTU)
        self.b.neighbour("eth1", _FAR, _FAR_MAC)
        self.b.forward()
        self.a.run(f"ip route add {_FAR} via {_ADDRESS['b']}")
        self.far.configure(self._far_device, _FAR_MAC, [f"{_FAR}/24"], {_OUTWARD: _OUTWARD_MAC})
        self.far.ip(f"route add {_ADDRESS['a']} via {_OUTWARD}")

    def other(self, guest):
        return self.b if guest is self.a else self.a

    # Traffic: what does not come as it was sent raises TrafficFailed; returned is what a capture at the receiver holds

    def tcp(self, sender, bytes, frames, seconds=60, **which):
        """One connection to the other guest, pseudo-random contents, compared by hash. (frames, Mbit/s)."""
        (sent, received), captured = self._exchange(sender, "receive", "send", seconds, frames, {"bytes": bytes},
                                                    {"proto": 6} | which)
        if (sent["bytes"], sent["hash"]) != (received["bytes"], received["hash"]) or int(sent["bytes"]) != bytes:
            raise TrafficFailed(f"{sender.name} sent {sent}, the other received {received}")
        return captured, bytes * 8e3 / int(sent["nanoseconds"])

    def received_mean(self, sender, bytes):
        """Bytes a frame at the receiver, over one connection, as its driver counts them."""
        receiver = self.other(sender)
        before = receiver.driver_counters()
        self.tcp(sender, bytes, frames=1)
        after = receiver.driver_counters()
        return (after["rx_bytes"] - before["rx_bytes"]) / (after["rx_packets"] - before["rx_packets"])

    def udp(self, sender, count, frames, size=1000, seconds=20):
        """Numbered datagrams to the other guest, none of which may be lost, repeated or changed."""
        (_, came), captured = self._exchange(sender, "udp-receive", "udp-send", seconds, frames,
                                             {"count": count, "size": size}, {"proto": 17})
        if came != {"distinct": str(count), "repeated": "0", "wrong": "0"}:
            raise TrafficFailed(f"of {count} datagrams from {sender.name}: {came}")
        return captured

    def _exchange(self, sender, receive, send, seconds, frames, what, which):
        receiver, port = self.other(sender), next(self._ports)
        with (receiver.capture(packets=frames, **which) as capture,
              receiver.job(receive, port=port, **what) as inbound,
              sender.job(send, to=_ADDRESS[receiver.name], port=port, **what) as outbound):
            try:
                results = sender.wait(outbound, seconds), receiver.wait(inbound, seconds)
                return results, receiver.captured(capture, seconds=5)
            except JobUnfinished as error:
                raise TrafficFailed(f"{send} from {sender.name} to {receiver.name}: {error}") from None

    def tcp_outward(self, bytes, seconds=20):
        """One connection from a, routed by b, to the far namespace."""
        came, port = [], next(self._ports)
        with Capture(self.far, self._far_device) as capture, self.far.socket() as listener:
            listener.bind((_FAR, port))
            listener.listen(1)
            reader = threading.Thread(target=lambda: came.append(_drain(listener, seconds)))
            reader.start()
            with self.a.job("send", to=_FAR, port=port, bytes=bytes):
                reader.join()
            frames = capture.frames()
        if came != [bytes]:
            raise TrafficFailed(f"{came} of {bytes} bytes came through b")
        return frames

    # The judge

    @contextlib.contextmanager
    def no_errors(self):
        """Raises Violation where a kernel counted a wrong checksum meanwhile, also if traffic failed for it."""
        before = self._errors()
        try:
            yield
        finally:
            if found := [f"{place}: {count} {name}" for (place, name), count in (self._errors() - before).items()]:
                raise oracle.Violation({"kernel": found})

    def _errors(self):
        ends = {"a": self.a, "b": self.b} | ({"far": self.far} if self.far else {})
        return collections.Counter({(name, key): counters[key] for name, end in ends.items()
                                    for counters in [end.counters()] for key in _WRONG})

    def judge(self, frames, frame_count_min=20):
        """Raises Violation where a frame is wrong once completed, in this laboratory's or in tshark's opinion."""
        seen = oracle.examine(frames)
        findings = {"frames": seen.findings, "tshark": oracle.ask_tshark(self.directory, seen.finished)}
        if len(seen.finished) < frame_count_min:
            findings["evidence"] = [f"only {len(seen.finished)} frames of TCP and UDP"]
        if findings := {kind: found for kind, found in findings.items() if found}:
            raise oracle.Violation(findings)
        return seen


def _drain(listener, seconds):
    """Bytes until the end of the connection, or until nothing came for `seconds`."""
    count = 0
    listener.settimeout(seconds)
    try:
        with listener.accept()[0] as connection:
            connection.settimeout(seconds)
            while part := connection.recv(1 << 20):
                count += len(part)
    except TimeoutError:
        pass
    return count
