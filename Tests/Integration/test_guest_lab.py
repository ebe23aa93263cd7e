"""The guest laboratory tried on a forwarder that is known to be wrong.

testpmd keeps partial checksums and superframes, but the vhost library it sends with spoils the seed of every
superframe (contract, section 6). TCP between guests does not notice, which is why TCP proves nothing; each oracle must.
"""
import pytest

from lab import netns
from lab.pair import Pair, objections
from lab.testpmd import Testpmd

MEGABYTES = 1 << 20


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    directory = tmp_path_factory.mktemp("testpmd")
    sockets = [directory / "a.sock", directory / "b.sock"]
    with netns.Namespace("far") as far, Testpmd(sockets, directory), Pair(sockets, directory, far) as pair:
        pair.far = far
        yield pair


def test_oracle_objects_where_tcp_does_not(pair):
    capture = pair.b.capture(packets=50, proto=6, larger=8000)
    pair.send(pair.a, 32 * MEGABYTES)
    packets = pair.b.captured(capture)
    assert all(packet.partial and packet.gso_size for packet in packets)
    assert len({text.split(":")[0] for text in objections(packets)}) >= 40
    assert pair.b.counters()["TcpInCsumErrors"] == 0


def test_small_packets_are_right(pair):
    capture = pair.b.capture(packets=50, proto=17)
    assert pair.send_numbered(pair.a, 500) == {"distinct": 500, "repeated": 0, "wrong": 0}
    packets = pair.b.captured(capture)
    assert all(packet.partial for packet in packets)
    assert objections(packets) == []


def test_forwarding_guest_sends_wrong_checksums(pair):
    bytes = 4 * MEGABYTES
    import time; t=time.time(); print(pair.send_outward(bytes, seconds=5), time.time()-t, pair.far.counters(), pair.b.counters(), pair.b.offloads("eth1"), pair.far.call("ethtool","-k","apus%d"%__import__("os").getpid()+"f"))
    assert pair.far.counters()["TcpInCsumErrors"] > 0
