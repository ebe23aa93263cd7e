"""Every kind of port carries what it should, and says what it cannot."""

import itertools
import pathlib
import random
import re
import socket
import time

import pytest

from lab import oracle, owner, packets, pcap, process, traffic
from lab.chain import Chain
from lab.daemon import Daemon, DaemonFailed, binary, installed_libraries, quicker_library
from lab.netns import Namespace


def virtio(role, ring, mergeable, queues=1):
    other = {"server": "client", "client": "server"}[role]

    def sections(directory):
        path = directory / "v.sock"
        vhost = {"driver": "vhost-user", "path": path, "role": role, "queues": queues}
        guest = {"driver": "virtio-user", "path": path, "role": other, "ring": ring, "mergeable": mergeable, "queues": queues}
        return {"port x": vhost, "port y": guest, "wire one": {"ports": "a x"}, "wire two": {"ports": "y b"}}
    return sections


@pytest.mark.parametrize("role,ring,mergeable", itertools.product(["server", "client"], ["split", "packed"], ["on", "off"]))
def test_vhost_meets_virtio_user(role, ring, mergeable):
    """Both ends in one daemon: partial checksums and superframes cross the ring unharmed, and nothing is summed."""
    with Chain(virtio(role, ring, mergeable)) as chain:
        wait_for_peer(chain.daemon)
        chain.exercise()
        stats = chain.daemon.settled_stats()
    assert oracle.check_conservation(stats) == []
    assert oracle.full_checksums(stats) == 0
    for way in ("rx", "tx"):
        assert all(stats["ports"][port][f"{way}_superframes"] > 5 for port in "xy"), stats["ports"]


@pytest.mark.parametrize("which", ["beside the executable", "installed"])
def test_either_vhost_library_carries(which):
    """The loader takes the one for this processor where `make build` could make it, and start-up says which it took."""
    quicker = quicker_library()
    if which == "installed":
        environment, words = installed_libraries(), f"copied by {installed_libraries()['LD_LIBRARY_PATH']}/librte_vhost.so"
    else:
        if not quicker or not re.search(r"^flags\s*:.*\bavx2\b", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            pytest.skip("no vhost library was made from source, or this processor has no AVX2")
        environment, words = {}, f"copied by {quicker}\n"
    with Chain(virtio("server", "split", "on"), environment=environment) as chain:
        wait_for_peer(chain.daemon)
        chain.exercise()
        stats, log = chain.daemon.settled_stats(), chain.daemon.log()
        mapped = pathlib.Path(f"/proc/{chain.daemon.pid}/maps").read_text()
    assert oracle.check_conservation(stats) == [] and oracle.full_checksums(stats) == 0
    assert words in log, log
    assert ("'tools/vhost-library' makes a quicker one" in log) == (which == "installed")
    # One, and no other besides.
    assert set(re.findall(r"\S*librte_vhost\.so\S*", mapped)) == {str(pathlib.Path(re.search(r"copied by ([^\s,]*)", log)[1]).resolve())}


def wait_for_peer(daemon, seconds=8):
    deadline = time.monotonic() + seconds
    while "is there" not in daemon.log() and ("nobody listens" in daemon.log() or "waits for" in daemon.log()):
        assert time.monotonic() < deadline, daemon.log()
        time.sleep(0.05)
    time.sleep(0.3)


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_port_without_its_peer_is_no_obstacle(role, tmp_path):
    """It comes up, drops what is for it, and goes without having seen anybody."""
    frames = [packets.ipv4(17, packets.udp(bytes(100)))] * 40
    pcap.write(tmp_path / "in.pcap", frames)
    for driver in ("virtio-user", "vhost-user"):
        ports = {"port a": {"driver": "pcap", "rx": tmp_path / "in.pcap"}, "port b": {"driver": driver, "path": tmp_path / "x.sock", "role": role}}
        with Daemon(ports | {"wire w": {"ports": "a b"}}, binary()) as daemon:
            stats = daemon.settled_stats()
            assert daemon.ask("ports")["ports"]["b"]["up"] is False
        assert stats["ports"]["b"]["drops"]["transmit_full"] == 40
        assert not (tmp_path / "x.sock").exists()


def test_pcap_files(tmp_path):
    """What is read is written, byte for byte and in order; a superframe's length does not matter to a file."""
    frames = [packets.ipv4(17, packets.udp(random.Random(n).randbytes(n % 1470))) for n in range(500)]
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    pcap.write(source, frames)
    ports = {"port a": {"driver": "pcap", "rx": source}, "port b": {"driver": "pcap", "tx": target}}
    with Daemon(ports | {"wire w": {"ports": "a b"}}, binary()) as daemon:
        stats = daemon.settled_stats()
    assert stats["ports"]["a"]["rx_packets"] == stats["ports"]["b"]["tx_packets"] == 500
    assert pcap.read(target) == frames


def test_null_swallows(tmp_path):
    frames = [packets.ipv4(17, packets.udp(bytes(100)))] * 40
    pcap.write(tmp_path / "in.pcap", frames)
    ports = {"port a": {"driver": "pcap", "rx": tmp_path / "in.pcap"}, "port b": {"driver": "null"}}
    with Daemon(ports | {"wire w": {"ports": "a b"}}, binary()) as daemon:
        stats = daemon.settled_stats()
    assert stats["ports"]["b"]["tx_packets"] == 40 and stats["ports"]["b"]["rx_packets"] == 0
    assert stats["ports"]["b"]["index"] == 65537


def test_any_device_by_devargs():
    """net_ring gives back what is sent into it."""
    def sections(_):
        return {"port x": {"driver": "vdev", "devargs": "net_ring0"}, "port y": {"driver": "null"},
                "wire one": {"ports": "a x"}, "wire two": {"ports": "y b"}}
    with Chain(sections) as chain:
        frame = packets.ipv4(17, packets.udp(bytes(100)))
        namespace, device = chain.devices["a"]
        with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            for _ in range(20):
                sender.sendto(frame, (device, 0x0800))
        stats = chain.daemon.settled_stats()
        assert stats["ports"]["x"]["tx_packets"] == stats["ports"]["x"]["rx_packets"] == 20
        assert stats["ports"]["a"]["tx_packets"] == 20
        assert oracle.check_conservation(stats) == []


@pytest.mark.parametrize("port,words", [
    ({"driver": "af-xdp", "interface": "nonexistent0"}, "there is no device 'nonexistent0'"),
    ({"driver": "pci", "address": "0000:7f:1f.7"}, "cannot make the device 0000:7f:1f.7"),
    ({"driver": "vdev", "devargs": "net_nonesuch0"}, "cannot make the device net_nonesuch0"),
    ({"driver": "pcap", "rx": "/nonexistent/x.pcap"}, "cannot make the device net_pcap_a"),
    ({"driver": "vhost-user", "path": "/nonexistent/x.sock"}, "check that its directory exists"),
    ({"driver": "virtio-user", "path": "/run/x.sock", "queues": 64}, "large buffers"),
])
def test_what_cannot_start_is_one_sentence(port, words):
    with pytest.raises(DaemonFailed) as failure:
        with Daemon({"port a": port, "port b": {"driver": "null"}, "wire w": {"ports": "a b"}}, binary()):
            pass
    assert words in str(failure.value)
    assert "exit status 1" in str(failure.value)


def test_af_xdp_on_a_veth():
    """A kernel device without any offload: what the tap sends unfinished and large leaves finished and cut, counted."""
    near, far = owner.device_name("x"), "far"
    with Namespace("client") as client, Namespace("server") as server:
        process.call("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", client.name)
        try:
            process.call("ip", "link", "set", near, "up")
            client.offloads(far, tx=False, tso=False, gso=False)
            client.configure(far, "02:00:00:00:00:01", ["10.0.0.1/24"], {"10.0.0.2": "02:00:00:00:00:02"})
            device = owner.device_name("t")
            ports = {"port x": {"driver": "af-xdp", "interface": near},
                     "port t": {"driver": "tap", "interface": device, "netns": server.name}}
            with Daemon(ports | {"wire w": {"ports": "x t"}}, binary()) as daemon:
                server.configure(device, "02:00:00:00:00:02", ["10.0.0.2/24"], {"10.0.0.1": "02:00:00:00:00:01"})
                path = traffic.Path(client, server, ("10.0.0.2", 5201), ("10.0.0.2", 5201))
                traffic.tcp_upload(path, 1 << 20)
                traffic.tcp_download(path, 1 << 20)
                stats = daemon.settled_stats()
            [index] = [number for number, name in socket.if_nameindex() if name == near]
        finally:
            process.call("ip", "link", "del", near)
    assert stats["ports"]["x"]["index"] == index
    assert oracle.check_conservation(stats) == []
    assert client.name and stats["ports"]["x"]["tx_superframes"] == 0 < stats["ports"]["t"]["rx_superframes"]
    assert stats["checksum"]["software_full"]["segment"] > 500
