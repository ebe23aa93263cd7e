"""The guest laboratory tried on a forwarder that is known to be wrong.

testpmd keeps partial checksums and superframes, but the vhost library it sends with spoils the seed of every
superframe (contract, section 6). TCP between guests does not notice, which is why TCP proves nothing; each oracle must.
"""
import pytest

from lab import owner
from lab.oracle import Violation
from lab.pair import Pair
from lab.testpmd import Testpmd
from lab.traffic import TrafficFailed

MEGABYTE = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def nothing_remains():
    """The guests outlive a test here; the check for leftovers comes when they are gone."""
    yield
    assert not owner.remains()


@pytest.fixture(scope="module")
def pair():
    with Pair(Testpmd, outward=True) as pair:
        yield pair


def test_tcp_works_and_the_oracle_objects(pair):
    with pair.no_errors():
        frames, _ = pair.tcp(pair.a, 32 * MEGABYTE, frames=50, larger=8000)
    assert all(frame.partial and frame.superframe for frame in frames)
    with pytest.raises(Violation) as violation:
        pair.judge(frames)
    assert violation.value.kinds == {"frames", "tshark"}


def test_datagrams_are_right(pair):
    frames = pair.udp(pair.a, 500, frames=50)
    assert all(frame.partial for frame in frames)
    pair.judge(frames)


def test_traffic_that_does_not_come_is_reported_and_leaves_nothing(pair):
    pair.b.run("ip link set eth0 down")
    try:
        for transfer in (pair.tcp, pair.udp):
            with pytest.raises(TrafficFailed):
                transfer(pair.a, 1000, frames=1, seconds=1)
    finally:
        pair.b.run("ip link set eth0 up")
    pair.udp(pair.a, 100, frames=20)


def test_a_kernel_behind_a_routing_guest_objects(pair):
    with pytest.raises(Violation) as violation, pair.no_errors():
        pair.tcp_outward(MEGABYTE // 4)
    assert violation.value.kinds == {"kernel"}
