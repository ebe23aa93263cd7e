"""Ports of different kinds at the two ends: AF_XDP on a veth to vhost-user, virtio-user and tap, from a namespace that
nobody prepared; and testpmd between two ports, as their front end and as their back end."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import types

import pytest
import test_through

from lab import hugepages, oracle, owner, packets, process, traffic
from lab.capture import Capture
from lab.chain import PACKET_PAGES, Chain
from lab.daemon import Daemon, binary, polling_core
from lab.netns import Namespace
from lab.uprobe import Uprobe

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"


@contextlib.contextmanager
def from_a_veth(between, deliver="offload"):
    """An unmodified namespace `client` behind AF_XDP port x; `server` behind tap t; `between(directory)` joins them."""
    near = owner.device_name("x")
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(hugepages.Reserved(PACKET_PAGES))
        client, server = enter(Namespace("client")), enter(Namespace("server"))
        directory = owner.temporary_directory()
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        process.call("ip", "link", "add", near, "type", "veth", "peer", "name", "far", "netns", client.name)
        stack.callback(process.call, "ip", "link", "del", near)
        process.call("ip", "link", "set", near, "up")
        client.configure("far", "02:00:00:00:00:01", [f"{CLIENT}/24"], {SERVER: "02:00:00:00:00:02"})
        device = owner.device_name("t")
        ports = {"port x": {"driver": "af-xdp", "interface": near},
                 "port t": {"driver": "tap", "interface": device, "netns": server.name, "deliver": deliver}}
        uprobe = enter(Uprobe(binary()))
        daemon = enter(Daemon(ports | between(directory), binary()))
        server.configure(device, "02:00:00:00:00:02", [f"{SERVER}/24"], {CLIENT: "02:00:00:00:00:01"})
        yield daemon, client, server, device, uprobe


def straight(_):
    return {"wire w": {"ports": "x t"}}


def over_a_ring(first, second):
    """x ─ vhost-user ═ virtio-user ─ t, or the other way round."""
    def sections(directory):
        path = directory / "v.sock"
        return {"port v": {"driver": first, "path": path, "role": "server"}, "port u": {"driver": second, "path": path, "role": "client"},
                "wire one": {"ports": "x v"}, "wire two": {"ports": "u t"}}
    return sections


@pytest.mark.parametrize("deliver", ["offload", "full"])
@pytest.mark.parametrize("between", [straight, over_a_ring("vhost-user", "virtio-user"), over_a_ring("virtio-user", "vhost-user")],
                         ids=["tap", "vhost-user", "virtio-user"])
def test_an_unmodified_namespace(between, deliver):
    """The veth loses the mark of unfinished checksums; `infer`, the default there, finds the seeds."""
    with from_a_veth(between, deliver) as (daemon, client, server, device, uprobe):
        wait_for_rings(daemon)
        path = traffic.Path(client, server, (SERVER, 5201), (SERVER, 5201))
        with Capture(server, device) as arrivals, Capture(client, "far") as back:
            traffic.tcp_upload(path, 2 << 20)
            traffic.tcp_short_connections(path, 10)
            traffic.tcp_download(path, 2 << 20)
            traffic.udp_echo(traffic.Path(client, server, (SERVER, 5202), (SERVER, 5202)), 50, window=8)
            frames, backward = arrivals.frames(), back.frames()
        stats = daemon.settled_stats()
        errors = [space.counters()[name] for space in (client, server) for name in ("TcpInCsumErrors", "UdpInCsumErrors")]
        calls = uprobe.hits
    seen, returned = oracle.examine(frames), oracle.examine(backward)
    assert seen.findings == [] and returned.findings == [] and errors == [0, 0, 0, 0]
    assert oracle.check_conservation(stats) == [] and oracle.check_calls(stats, calls) == []
    assert stats["checksum"]["rx"]["partial"] > 500, "infer has found them"
    assert (seen.partial > 500) == (deliver == "offload")
    # What goes out by a device without offloads is finished and cut; toward the tap only where it asks for it.
    assert returned.partial == returned.superframes == 0
    software = {cause: count for cause, count in stats["checksum"]["software_full"].items() if count}
    print(software)
    assert set(software) <= {"egress", "segment"} and software["segment"] > 500


def test_jumbo_into_1500():
    """A datagram that is too large is dropped and counted; TCP's superframes come in segments that fit."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        left, right = enter(Namespace("left")), enter(Namespace("right"))
        devices = {"a": owner.device_name("a"), "b": owner.device_name("b")}
        ports = {"port a": {"driver": "tap", "interface": devices["a"], "netns": left.name, "mtu": 9000},
                 "port b": {"driver": "tap", "interface": devices["b"], "netns": right.name, "mtu": 1500}, "wire w": {"ports": "a b"}}
        daemon = enter(Daemon(ports, binary()))
        left.configure(devices["a"], "02:00:00:00:00:01", ["10.0.0.1/24"], {SERVER: "02:00:00:00:00:02"}, mtu=9000)
        right.configure(devices["b"], "02:00:00:00:00:02", ["10.0.0.2/24"], {CLIENT: "02:00:00:00:00:01"})
        with Capture(right, devices["b"]) as arrivals:
            with left.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for size in (1472, 1473, 4000, 8000):
                    sender.sendto(bytes(size), (SERVER, 9))
            place = types.SimpleNamespace(left=left, device=devices["a"])
            test_through.send(place, packets.ipv4(6, packets.tcp(bytes(30_000))), 0, 1, 8000)
            stats = daemon.settled_stats()
            frames = [frame for frame in arrivals.frames() if frame.data[12:14] == b"\x08\0"]
    assert stats["ports"]["b"]["drops"]["larger_than_mtu"] == 3
    assert oracle.check_conservation(stats) == []
    assert sorted((len(frame.data), frame.gso_size) for frame in frames) == [(14 + 1500, 0), (14 + 40 + 30_000, 1460)]
    assert oracle.examine(frames).findings == []


def wait_for_rings(daemon, seconds=10):
    deadline = time.monotonic() + seconds
    while not all(port["up"] for port in daemon.ask("ports")["ports"].values()):
        assert time.monotonic() < deadline, daemon.log()
        time.sleep(0.05)


@contextlib.contextmanager
def relay(devices, directory):
    """Carries what one device receives to the other, both ways, on the core that the forwarder does not poll."""
    core = next(iter(os.sched_getaffinity(0) - {polling_core()}), polling_core())
    with open(directory / "testpmd.log", "wb") as log:
        child = process.spawn(
            ["dpdk-testpmd", "--lcores", f"0@{core},1@{core}", "--no-huge", "-m", 384, "--no-pci", "--no-telemetry",
             "--file-prefix", owner.name("between"), *(word for device in devices for word in ("--vdev", device)), "--",
             "--forward-mode=io", "--auto-start", "--nb-cores=1", "--total-num-mbufs=40000", "--no-lsc-interrupt",
             "--tx-offloads=0x8000", "--stats-period=60"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.stop(child)


def roles(role):
    """What Apus is, and testpmd's two devices for it."""
    if role == "back end":
        def sections(directory):
            return {f"port {name}": {"driver": "vhost-user", "path": directory / f"{name}.sock", "role": "server"} for name in "xy"}
        return sections, "net_virtio_user{number},path={path},server=0,mrg_rxbuf=1,queue_size=1024"

    def sections(directory):
        return {f"port {name}": {"driver": "virtio-user", "path": directory / f"{name}.sock", "role": "client"} for name in "xy"}
    return sections, "net_vhost{number},iface={path},tso=1,legacy-ol-flags=1"


@pytest.mark.parametrize("role", ["back end", "front end"])
def test_testpmd_between(role):
    """left ─ tap ─ x ═ testpmd ═ y ─ tap ─ right. A front end that asks for nothing gets finished packets; a back end that
    takes everything gets them unfinished, spoils the seeds of superframes, and Apus finds them all the same."""
    sections, device = roles(role)
    with Chain(lambda directory: sections(directory) | {"wire one": {"ports": "a x"}, "wire two": {"ports": "y b"}}) as chain:
        devices = [device.format(number=number, path=chain.directory / f"{name}.sock") for number, name in enumerate("xy")]
        with relay(devices, chain.directory):
            wait_for_rings(chain.daemon, 20)
            captures = [Capture(*chain.devices[name]) for name in "ab"]
            with captures[0], captures[1]:
                chain.exercise()
                seen = [oracle.examine(capture.frames()) for capture in captures]
            stats = chain.daemon.settled_stats()
            errors = [space.counters()["TcpInCsumErrors"] + space.counters()["UdpInCsumErrors"] for space in (chain.left, chain.right)]
    assert errors == [0, 0] and oracle.check_conservation(stats) == []
    for crossing in seen:
        assert crossing.findings == [] and len(crossing.finished) > 50
    print({cause: count for cause, count in stats["checksum"]["software_full"].items() if count}, stats["checksum"]["rx"],
          [crossing.superframes for crossing in seen])
    software = stats["checksum"]["software_full"]
    if role == "back end":
        assert software["segment"] + software["egress"] > 500 and all(crossing.superframes == 0 for crossing in seen)
    else:
        assert all(crossing.superframes > 5 for crossing in seen)
