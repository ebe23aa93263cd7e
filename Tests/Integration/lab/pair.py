"""Two guests behind one forwarder, what they send each other, and the judge of what they received."""
import dataclasses
import socket
import threading

from lab import checksum, owner, wire
from lab.guest import Guest, GuestError, tap, vhost_user
from lab.scope import Scope

MTU = 1500
_MAC = {"a": "52:54:00:0a:00:01", "b": "52:54:00:0a:00:02"}
_OUTWARD_MAC = "52:54:00:0a:00:03"
_ADDRESS = {"a": "10.7.0.1", "b": "10.7.0.2"}
_OUTWARD = {"b": "10.8.0.1", "far": "10.8.0.2"}


@dataclasses.dataclass(frozen=True)
class Transfer:
    bytes: int
    seconds: float

    @property
    def megabits_per_second(self):
        return self.bytes * 8 / self.seconds / 1e6


class Pair:
    """Guests `a` and `b` on two vhost-user sockets, with all offloads the sockets' backend agrees to.

    With `far`, a namespace, b also routes to a tap there through a NIC without any offload: b's kernel has to finish
    what it received unfinished, and the kernel of this machine verifies the result.
    """

    def __init__(self, sockets, directory, far=None):
        self._sockets, self._directory, self._far = sockets, directory, far
        self._scope = Scope()

    def __enter__(self):
        try:
            for name, path in zip("ab", self._sockets):
                nics = [vhost_user(path, _MAC[name])]
                if name == "b" and self._far:
                    nics.append(tap(owner.device_name("f"), _OUTWARD_MAC, csum="off", guest_csum="off", gso="off"))
                guest = Guest(name, nics, self._directory, namespace=self._far if len(nics) > 1 else None)
                setattr(self, name, self._scope.enter_context(guest))
                # The guest's own GRO would make superframes of what arrived in pieces.
                guest.offload("eth0", "rx-gro", False)
                guest.address("eth0", f"{_ADDRESS[name]}/24", MTU)
            self.a.neighbour("eth0", _ADDRESS["b"], _MAC["b"])
            self.b.neighbour("eth0", _ADDRESS["a"], _MAC["a"])
            if self._far:
                self._route_outward()
        except BaseException:
            self._scope.close()
            raise
        return self

    def __exit__(self, *exception):
        self._scope.close()

    def _route_outward(self):
        device = owner.device_name("f")
        self.b.address("eth1", f"{_OUTWARD['b']}/24", MTU)
        self.b.forward()
        self.a.run(f"ip route add {_OUTWARD['far']} via {_ADDRESS['b']}")
        self._far.ip(f"link set {device} mtu {MTU} up", f"address add {_OUTWARD['far']}/24 dev {device}",
                     f"route add {_ADDRESS['a']} via {_OUTWARD['b']}")

    def other(self, guest):
        return self.b if guest is self.a else self.a

    def send(self, sender, bytes, port=5000, seed=1, seconds=120):
        """One TCP connection to the other guest, `bytes` of pseudo-random contents, compared by hash."""
        receiver = self.other(sender)
        inbound = receiver.start("receive", port=port)
        outbound = sender.start("send", to=_ADDRESS[receiver.name], port=port, bytes=bytes, seed=seed)
        sent, received = sender.wait(outbound, seconds), receiver.wait(inbound, 20)
        if (sent["bytes"], sent["hash"]) != (received["bytes"], received["hash"]) or int(sent["bytes"]) != bytes:
            raise GuestError(f"{sender.name} sent {sent}, {receiver.name} received {received}")
        return Transfer(bytes, int(sent["nanoseconds"]) / 1e9)

    def send_numbered(self, sender, count, size=1000, port=5001):
        """Numbered datagrams to the other guest: what did arrive, as the agent counts it."""
        receiver = self.other(sender)
        inbound = receiver.start("udp-receive", port=port, count=count)
        outbound = sender.start("udp-send", to=_ADDRESS[receiver.name], port=port, count=count, size=size)
        sender.wait(outbound)
        return {key: int(value) for key, value in receiver.wait(inbound).items()}

    def send_outward(self, bytes, seconds=60, port=5002):
        """One TCP connection from a, routed by b, to the far namespace; how many bytes came there in time."""
        came = []
        with self._far.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((_OUTWARD["far"], port))
            listener.listen(1)
            listener.settimeout(seconds)
            reader = threading.Thread(target=lambda: came.append(_drain(listener, seconds)))
            reader.start()
            job = self.a.start("send", to=_OUTWARD["far"], port=port, bytes=bytes)
            reader.join()
            self.a.command(f"kill job={job}")
        return came[0]


def _drain(listener, seconds):
    """Bytes until the end of the connection, or until nothing came for `seconds`."""
    count = 0
    try:
        with listener.accept()[0] as connection:
            connection.settimeout(seconds)
            while part := connection.recv(1 << 20):
                count += len(part)
    except TimeoutError:
        pass
    return count


def finished(packet):
    """The frame as it would leave through a device that completes checksums, literally as its header asks."""
    if not packet.partial:
        return packet.frame
    return checksum.complete(packet.frame, packet.csum_start, packet.csum_offset)


def objections(packets, mtu=MTU):
    """What is wrong with captured packets: wrong seeds, wrong places, superframes that claim to be none."""
    found = []
    for number, packet in enumerate(packets):
        what = checksum.problems(finished(packet))
        parsed = wire.parse(packet.frame)
        if packet.partial and parsed and parsed.has_l4:
            if (packet.csum_start, packet.csum_offset) != (parsed.l4, parsed.checksum_offset):
                what.append(f"partial at {packet.csum_start}+{packet.csum_offset}, L4 at {parsed.l4}")
            if parsed.l4 + parsed.l4_length != len(packet.frame):
                what.append("partial with bytes behind the datagram")
        if packet.gso_size and not packet.partial:
            what.append("a superframe that is not partial")
        if packet.gso_size > mtu - 40:
            what.append(f"segments of {packet.gso_size} bytes exceed the MTU")
        if not packet.gso_size and len(packet.frame) > mtu + 14:
            what.append(f"{len(packet.frame)} bytes exceed the MTU")
        found += [f"packet {number}: {text}" for text in what]
    return found
