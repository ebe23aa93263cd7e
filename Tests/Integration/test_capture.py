"""`apusctl capture` as tshark reads it, DPDK's telemetry socket, and that neither changes anything."""

import json
import pathlib
import signal
import socket
import subprocess
import time

import pytest

from lab import oracle, process, traffic
from lab.chain import Chain
from lab.daemon import REPOSITORY

FIELDS = ("frame.interface_name", "frame.packet_flags_direction", "frame.comment", "frame.len", "tcp.dstport")


def wires(_):
    return {"wire w": {"ports": "a b"}}


def capture(chain, *words):
    return subprocess.Popen([REPOSITORY / ".build/release/apusctl", "capture", "-s", chain.daemon.socket, *words],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def read(path) -> list[dict[str, str]]:
    output = process.call("tshark", "-n", "-r", path, "-T", "fields", *(word for field in FIELDS for word in ("-e", field)), timeout=60)
    return [dict(zip(FIELDS, line.split("\t"))) for line in output.splitlines()]


def test_every_packet_is_shown_where_it_came_and_went(tmp_path):
    with Chain(wires) as chain:
        tool = capture(chain, "-w", str(tmp_path / "all.pcapng"))
        time.sleep(0.5)
        traffic.tcp_upload(chain.path(), 1 << 20)
        stats = chain.daemon.settled_stats()
        time.sleep(0.3)
        tool.send_signal(signal.SIGINT)
        assert tool.wait(5) == 0, tool.stderr.read()
    frames = read(tmp_path / "all.pcapng")
    for label in "ab":
        for way, direction in (("rx", "0x00000001"), ("tx", "0x00000002")):
            shown = [frame for frame in frames if frame["frame.interface_name"] == label
                     and int(frame["frame.packet_flags_direction"] or "0", 0) == int(direction, 0)]
            assert len(shown) == stats["ports"][label][f"{way}_packets"]
            assert sum(int(frame["frame.len"]) for frame in shown) == stats["ports"][label][f"{way}_bytes"]
            large = [frame for frame in shown if "superframe" in frame["frame.comment"]]
            assert len(large) == stats["ports"][label][f"{way}_superframes"]
    assert any("checksum partial, start 34 offset 16; superframe of segments of 1448" in frame["frame.comment"] for frame in frames)


def test_one_port_to_a_pipe_and_drops_with_their_reason():
    with Chain(wires) as chain:
        tool = capture(chain, "-w", "-", "-c", "4", "b")
        time.sleep(0.5)
        chain.right.ip(f"link set {chain.devices['b'][1]} down")   # the kernel refuses what is written
        with chain.left.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                sender.sendto(b"x" * 100, ("10.0.0.2", 9))
        output, errors = tool.communicate(timeout=10)
        assert tool.returncode == 0, errors
    path = pathlib.Path(chain.directory).with_suffix(".pcapng")
    try:
        path.write_bytes(output)
        frames = read(path)
    finally:
        path.unlink()
    assert {frame["frame.interface_name"] for frame in frames} == {"b"}
    assert sum("dropped: transmit_refused" in frame["frame.comment"] for frame in frames) >= 1, frames


def test_what_cannot_be_captured_is_one_sentence(tmp_path):
    with Chain(wires) as chain:
        for words, sentence in [(("-w", "/nonexistent/x"), "cannot be written"), (("-w", str(tmp_path / "x"), "nobody"), "there is no port 'nobody'")]:
            tool = capture(chain, *words)
            assert tool.wait(5) == 1 and sentence in tool.stderr.read().decode()
        (tmp_path / "file").write_text("precious")
        assert "is no FIFO" in chain.daemon.ask(f"capture {tmp_path / 'file'}")["error"]
        assert (tmp_path / "file").read_text() == "precious"


def test_the_daemon_may_end_first(tmp_path):
    with Chain(wires) as chain:
        tool = capture(chain, "-w", str(tmp_path / "x.pcapng"))
        time.sleep(0.5)
        chain.exercise(1 << 18)
    assert tool.wait(5) == 0
    assert len(read(tmp_path / "x.pcapng")) > 100


def test_dpdk_telemetry_tells_the_same():
    """The line protocol of DPDK's usertools: a packet a request, JSON back."""
    with Chain(wires) as chain:
        chain.exercise(1 << 18)
        stats = chain.daemon.settled_stats()
        [path] = pathlib.Path("/run/dpdk").glob(f"apus-{chain.daemon.name}/dpdk_telemetry.v2*")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(5)
            client.connect(str(path))
            client.recv(1024)

            def ask(command):
                client.send(command.encode())
                return json.loads(client.recv(16384))[command.split(",")[0]]
            assert ask("/apus/port") == ["a", "b"]
            port = ask("/apus/port,a")
            assert ask("/apus/lcore") == list(stats["lcores"])
            assert ask(f"/apus/lcore,{list(stats['lcores'])[0]}")["packets"] > 0
            assert ask("/apus/program") == []
    assert {key: port[key] for key in ("rx_packets", "tx_bytes", "rx_superframes")} == {
        key: stats["ports"]["a"][key] for key in ("rx_packets", "tx_bytes", "rx_superframes")}
