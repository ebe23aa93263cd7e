"""Three namespaces on a bridge: the kernel's TCP between each two, what is flooded and what is not, VLANs."""

import contextlib
import itertools
import socket
import subprocess
import time

import pytest

from lab import hugepages, oracle, owner, packets, pcap, traffic
from lab.capture import Capture
from lab.chain import PACKET_PAGES
from lab.daemon import REPOSITORY, Daemon, binary
from lab.netns import Namespace

MACS = {label: f"02:00:00:00:00:0{number}" for number, label in enumerate("abc", 1)}
ADDRESSES = {label: f"10.0.0.{number}" for number, label in enumerate("abc", 1)}


@contextlib.contextmanager
def bridge(vlans=(None, None, None), settings=None, apus=None, tap=None):
    """The daemon, the namespaces, the names of their taps."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(hugepages.Reserved(PACKET_PAGES))
        spaces = {label: enter(Namespace(label)) for label in "abc"}
        devices = {label: owner.device_name(label) for label in "abc"}
        sections = {f"port {label}": {"driver": "tap", "interface": devices[label], "netns": spaces[label].name} | (tap or {})
                    | ({"vlan": vlan} if vlan else {}) for label, vlan in zip("abc", vlans)}
        sections["bridge br0"] = {"ports": "a b c"} | (settings or {})
        if apus:
            sections["apus"] = apus
        daemon = enter(Daemon(sections, binary()))
        for label in "abc":
            others = {ADDRESSES[other]: MACS[other] for other in "abc" if other != label}
            spaces[label].configure(devices[label], MACS[label], [f"{ADDRESSES[label]}/24"], others)
        yield daemon, spaces, devices


def path(spaces, client, server, port=5201):
    return traffic.Path(spaces[client], spaces[server], (ADDRESSES[server], port), (ADDRESSES[server], port))


def test_three_namespaces():
    """TCP between each two, superframes whole, no sum in software."""
    with bridge() as (daemon, spaces, _):
        for client, server in itertools.permutations("abc", 2):
            traffic.tcp_upload(path(spaces, client, server), 1 << 20)
            traffic.udp_echo(path(spaces, client, server, 5202), 20, window=4)
        stats = daemon.settled_stats()
        known = daemon.ask("bridge")["bridges"]["br0"]
        wrong = [space.counters()["TcpInCsumErrors"] + space.counters()["UdpInCsumErrors"] for space in spaces.values()]
    assert wrong == [0, 0, 0]
    assert oracle.check_conservation(stats) == []
    assert oracle.full_checksums(stats) == 0
    assert all(port["tx_superframes"] > 5 for port in stats["ports"].values())
    assert {(entry["address"], entry["vlan"], entry["port"]) for entry in known["addresses"]} == {
        (MACS[label], 0, label) for label in "abc"}
    assert known["ports"] == {"a": 1, "b": 1, "c": 1}


def test_a_known_address_is_private():
    """What is for one is seen by no other; what is for all by each, once."""
    with bridge() as (daemon, spaces, devices):
        with Capture(spaces["c"], devices["c"]) as bystander:
            traffic.udp_echo(path(spaces, "a", "b", 5202), 50, window=1)   # both become known in the first two frames
            group = bytes.fromhex("ffffffffffff020000000001") + packets.ipv4(17, packets.udp(b"to all"))[12:]
            with spaces["a"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
                for _ in range(7):
                    sender.sendto(group, (devices["a"], 0x0800))
            stats = daemon.settled_stats()
            seen = [frame.data for frame in bystander.frames()]
    assert seen.count(group) == 7
    assert len(seen) - 7 <= 1, "one frame to b before b was heard"
    assert oracle.check_conservation(stats) == []


def test_vlans_keep_apart():
    with bridge(("access 10", "access 20", "access 10")) as (daemon, spaces, devices):
        traffic.udp_echo(path(spaces, "a", "c", 5202), 20, window=4)
        with Capture(spaces["b"], devices["b"]) as other:
            with pytest.raises(traffic.TrafficFailed):
                traffic.tcp_upload(traffic.Path(spaces["a"], spaces["b"], (ADDRESSES["b"], 1), (ADDRESSES["b"], 1), 0.5), 10)
            assert other.frames() == []
        assert oracle.check_conservation(daemon.settled_stats()) == []


def test_a_trunk_is_tagged(tmp_path):
    """What is unfinished leaves an access port's bridge tagged and finished by a trunk that is a file; tagged frames of the
    file come out untagged. (The kernels of these tests may lack VLAN devices.)"""
    address = MACS["a"].replace(":", "")
    arrivals = [bytes.fromhex(address) + bytes.fromhex("020000000009") + bytes.fromhex(f"8100{vlan:04x}") + packets.ipv4(17, packets.udp(b"x"))[12:]
                for vlan in (10, 30)]
    pcap.write(tmp_path / "in.pcap", arrivals)
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(Namespace("a"))
        device = owner.device_name("a")
        ports = {"port a": {"driver": "tap", "interface": device, "netns": a.name, "vlan": "access 10"},
                 "port t": {"driver": "pcap", "rx": tmp_path / "in.pcap", "tx": tmp_path / "out.pcap", "vlan": "trunk 10,20"},
                 "bridge br0": {"ports": "a t"}}
        with Daemon(ports, binary()) as daemon:
            a.configure(device, MACS["a"], ["10.0.0.1/24"], {"10.0.0.2": "02:00:00:00:00:09"})
            with a.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.setblocking(False)
                client.connect_ex(("10.0.0.2", 1))
                stats = daemon.settled_stats()
    assert stats["ports"]["t"]["drops"]["vlan"] == 1 and stats["ports"]["a"]["tx_packets"] == 1
    assert oracle.check_conservation(stats) == []
    frames = pcap.read(tmp_path / "out.pcap")
    assert frames and all(frame[12:16] == bytes.fromhex("8100000a") for frame in frames)
    assert stats["checksum"]["software_full"]["egress"] == len(frames)
    assert {verdict["tcp"] for verdict in pcap.verdicts(tmp_path / "out.pcap")} == {"good"}


def test_ageing():
    with bridge(settings={"ageing": 1}) as (daemon, spaces, _):
        traffic.udp_echo(path(spaces, "a", "b", 5202), 2, window=1)
        assert daemon.ask("bridge")["bridges"]["br0"]["ports"] == {"a": 1, "b": 1, "c": 0}
        deadline = time.monotonic() + 5
        while any(daemon.ask("bridge")["bridges"]["br0"]["ports"].values()):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_two_lcores_share_one_table():
    """What one lcore learns the other finds: with two queues a port, spread over two sleepy lcores."""
    apus = {"lcores": "0-1", "idle": "sleep"}
    with bridge(apus=apus, tap={"queues": 2}) as (daemon, spaces, _):
        for client, server in itertools.permutations("abc", 2):
            traffic.tcp_upload(path(spaces, client, server), 1 << 20)
            traffic.udp_echo(path(spaces, client, server, 5202), 20, window=4)
        stats = daemon.settled_stats()
        known = daemon.ask("bridge")["bridges"]["br0"]
    assert oracle.check_conservation(stats) == []
    assert set(known["ports"].values()) == {1}
    assert all(lcore["packets"] > 0 for lcore in stats["lcores"].values()), stats["lcores"]


def test_apusctl_shows_and_sets():
    with bridge() as (daemon, spaces, _):
        def apusctl(*words):
            done = subprocess.run([REPOSITORY / ".build/release/apusctl", *words, "-s", daemon.socket], capture_output=True, text=True)
            return done.returncode, (done.stdout + done.stderr)
        traffic.tcp_upload(path(spaces, "a", "b"), 1 << 20)
        status, shown = apusctl("bridge")
        assert status == 0 and MACS["a"] in shown and "br0" in shown
        status, shown = apusctl("ports")
        assert status == 0 and "bridge br0" in shown and "offload" in shown
        assert daemon.settled_stats()["ports"]["b"]["tx_superframes"] > 0
        before = daemon.settled_stats()
        assert apusctl("port", "set", "b", "deliver=full")[0] == 0
        assert daemon.ask("ports")["ports"]["b"]["deliver"] == "full"
        traffic.tcp_upload(path(spaces, "a", "b"), 1 << 20)
        after = daemon.settled_stats()
        assert after["ports"]["b"]["tx_superframes"] == before["ports"]["b"]["tx_superframes"]
        assert after["checksum"]["software_full"]["segment"] > 500
        assert apusctl("port", "set", "b", "deliver=offload")[0] == 0
        traffic.tcp_upload(path(spaces, "a", "b"), 1 << 20)
        assert daemon.settled_stats()["ports"]["b"]["tx_superframes"] > after["ports"]["b"]["tx_superframes"]
        assert oracle.check_conservation(daemon.settled_stats()) == []
        assert apusctl("port", "set", "nobody", "deliver=full") == (1, "apusctl: The daemon refused: there is no port 'nobody'; there are a, b, c.\n")
        assert apusctl("port", "set", "a", "mtu=9")[0] == 1
