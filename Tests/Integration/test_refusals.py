"""Guests that take less than others: no GUEST_TSO4, no GUEST_CSUM, and one that attaches XDP to its own NIC.

TCP runs both ways, to the receiver at `deliver = offload` and at `full`, judged as in test_guests.py: captures inside
the receiving guest completed by independent code and by tshark, kernels' counters, and a uprobe that agrees with the
forwarder's.
"""
import functools

import pytest

from lab import owner
from lab.oracle import Violation
from lab.pair import MTU, Apus, Pair
from lab.traffic import TrafficFailed

MEGABYTE = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def nothing_remains():
    """Guests outlive a test here; the check for leftovers comes when they are gone."""
    yield
    assert not owner.remains()


def pair_with(**properties):
    @pytest.fixture(scope="class")
    def pair(self):
        with Pair(Apus, outward=True, b=properties) as pair:
            yield pair
    return pair


def to_b(pair, how, bytes=8 * MEGABYTE):
    """TCP from a to b with b's port at `how`. (what arrived at b, full checksums in software meanwhile)."""
    pair.forwarder.deliver_to_b(how)
    before = pair.forwarder.stats()["checksum"]["software_full"]
    with pair.no_errors():
        frames, _ = pair.tcp(pair.a, bytes, frames=500, larger=1000)
        frames += pair.tcp(pair.a, MEGABYTE, frames=25, seconds=10)[0]
    after = pair.forwarder.stats()["checksum"]["software_full"]
    assert not pair.forwarder.findings(), "counters against the uprobe, and conservation"
    assert max(len(frame.data) for frame in frames) <= 14 + MTU
    return pair.judge(frames), {cause: after[cause] - before[cause] for cause in after}


def from_b(pair):
    """TCP the other way: a has taken everything."""
    with pair.no_errors():
        frames, _ = pair.tcp(pair.b, 20 * MEGABYTE, frames=100, larger=8000)
    seen = pair.judge(frames)
    assert seen.partial == seen.superframes == len(seen.frames)
    assert not pair.forwarder.findings()


def outward(pair):
    """From a, routed by b, out of a NIC without offloads: b's kernel finishes what it was given."""
    with pair.no_errors():
        frames = pair.tcp_outward(2 * MEGABYTE)
    seen = pair.judge(frames)
    assert seen.partial == seen.superframes == 0


class TestNoTSO:
    """b takes unfinished packets, but no superframes: they are cut, and each segment is left unfinished."""
    pair = pair_with(guest_tso4="off")

    def test_it_is_refused(self, pair):
        assert "GUEST_TSO4" not in pair.b.features() and "GUEST_CSUM" in pair.b.features()

    def test_segments_are_left_unfinished(self, pair):
        seen, sums = to_b(pair, "offload")
        assert seen.partial == len(seen.frames) and seen.superframes == 0
        assert not any(sums.values()), sums

    def test_full(self, pair):
        seen, sums = to_b(pair, "full")
        assert seen.partial == seen.superframes == 0
        assert sums["segment"] > 0 and set(cause for cause in sums if sums[cause]) <= {"segment", "egress"}, sums

    def test_the_other_way(self, pair):
        from_b(pair)

    @pytest.mark.parametrize("how", ("offload", "full"))
    def test_b_can_send_on_what_it_received(self, pair, how):
        pair.forwarder.deliver_to_b(how)
        outward(pair)


class TestNoChecksum:
    """b takes finished packets only, whatever its port says."""
    pair = pair_with(guest_csum="off")

    def test_it_is_refused(self, pair):
        assert "GUEST_CSUM" not in pair.b.features() and "GUEST_CSUM" in pair.a.features()

    @pytest.mark.parametrize("how", ("offload", "full"))
    def test_segments_are_finished(self, pair, how):
        seen, sums = to_b(pair, how)
        assert seen.partial == seen.superframes == 0
        assert sums["segment"] > 0 and set(cause for cause in sums if sums[cause]) <= {"segment", "egress"}, sums

    def test_datagrams_are_finished(self, pair):
        with pair.no_errors():
            frames = pair.udp(pair.a, 500, frames=100, size=1001)
        assert pair.judge(frames).partial == 0
        assert not pair.forwarder.findings()

    def test_the_other_way(self, pair):
        from_b(pair)

    def test_b_can_send_on_what_it_received(self, pair):
        outward(pair)


class TestNativeXDP:
    """b attaches XDP to its own NIC, natively: Linux then turns its offloads off through its control queue, of which the
    backend hears nothing. `deliver = full` is what helps."""

    @pytest.fixture(scope="class")
    def pair(self):
        with Pair(functools.partial(Apus, deliver_to_b="full")) as pair:
            pair.b.native_xdp("eth0")
            yield pair

    def test_the_backend_does_not_know(self, pair):
        assert {"GUEST_CSUM", "GUEST_TSO4"} <= pair.b.features()

    def test_full(self, pair):
        seen, sums = to_b(pair, "full")
        assert seen.partial == seen.superframes == 0
        assert sums["segment"] > 0

    def test_the_other_way(self, pair):
        from_b(pair)

    def test_with_offload_it_would_not_run(self, pair):
        """Else the cases above would show nothing."""
        pair.forwarder.deliver_to_b("offload")
        try:
            with pytest.raises((Violation, TrafficFailed)) as failure, pair.no_errors():
                pair.tcp(pair.a, MEGABYTE, frames=1, seconds=3)
            assert failure.type is Violation and "TcpInCsumErrors" in str(failure.value)
        finally:
            pair.forwarder.deliver_to_b("full")
        to_b(pair, "full", MEGABYTE)
