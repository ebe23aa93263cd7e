"""Two Linux guests through Apus on vhost-user, the reading program attached to both ports in `lazy`.

Each case is judged by what a capture inside the receiving guest holds, completed by independent code and by tshark, by
the kernels of all receivers, and by a uprobe on the summing function.
"""
import functools
import os
import pathlib

import pytest

from lab import owner
from lab.daemon import REPOSITORY
from lab.oracle import Violation, full_checksums
from lab.pair import MTU, Apus, Pair

MEGABYTE = 1 << 20
PLANTED = {
    "executable": pathlib.Path(os.environ.get("APUS_PLANTED_BINARY", REPOSITORY / ".build-planted/release/apus")),
    "environment": {"APUS_PLANT": "wrong-seed"},
}


@pytest.fixture(scope="module", autouse=True)
def nothing_remains():
    """Guests outlive a test here; the check for leftovers comes when they are gone."""
    yield
    assert not owner.remains()


def pair_behind(**options):
    @pytest.fixture(scope="class")
    def pair(self):
        with Pair(functools.partial(Apus, **options), outward="deliver_to_b" not in options) as pair:
            yield pair
    return pair


# The cases. Each raises Violation where a checksum is wrong, and returns what arrived.

def tcp_bulk(pair, sender):
    with pair.no_errors():
        # From 8 KB up, since acknowledgements are no bulk, and some from beyond the slow start.
        frames, megabits = pair.tcp(sender, 100 * MEGABYTE, frames=200, every=4, larger=8000)
    seen = pair.judge(frames)
    print(f"{sender.name}: {megabits:.0f} Mbit/s, {seen.superframe_mean:.0f} bytes a superframe")
    return seen


def tcp_small(pair, sender):
    """All of a connection: handshake, acknowledgements, the first and the last segments."""
    with pair.no_errors():
        frames, _ = pair.tcp(sender, MEGABYTE, frames=25, seconds=10)
    return pair.judge(frames)


def udp(pair, sender):
    with pair.no_errors():
        frames = pair.udp(sender, 1000, frames=200, size=1001)
    return pair.judge(frames)


def tcp_outward(pair, bytes=8 * MEGABYTE, **options):
    with pair.no_errors():
        frames = pair.tcp_outward(bytes, **options)
    return pair.judge(frames)


class TestOffload:
    pair = pair_behind()

    def test_everything_is_negotiated(self, pair):
        for guest in (pair.a, pair.b):
            assert {"CSUM", "GUEST_CSUM", "HOST_TSO4", "GUEST_TSO4"} <= guest.features()
            offloads = guest.offloads()
            assert offloads["tx-checksum-ip-generic"] and offloads["tx-tcp-segmentation"] and offloads["rx-checksum"]

    @pytest.mark.parametrize("name", "ab")
    def test_tcp_stays_partial_in_superframes(self, pair, name):
        seen = tcp_bulk(pair, getattr(pair, name))
        assert seen.partial == seen.superframes == len(seen.frames)
        assert seen.superframe_mean > 30_000

    @pytest.mark.parametrize("name", "ab")
    def test_the_driver_counts_superframes(self, pair, name):
        """With GRO off (lab/pair.py), so that nobody but the sender made them large."""
        mean = pair.received_mean(getattr(pair, name), 100 * MEGABYTE)
        print(f"from {name}: {mean:.0f} bytes a received frame")
        assert mean > 30_000

    @pytest.mark.parametrize("name", "ab")
    def test_small_segments_stay_partial(self, pair, name):
        seen = tcp_small(pair, getattr(pair, name))
        assert seen.partial == len(seen.frames)

    @pytest.mark.parametrize("name", "ab")
    def test_datagrams_stay_partial(self, pair, name):
        seen = udp(pair, getattr(pair, name))
        assert seen.partial == len(seen.frames)

    def test_the_receiver_can_send_on_what_it_received(self, pair):
        seen = tcp_outward(pair)
        assert seen.partial == seen.superframes == 0

    def test_nothing_was_summed_in_software(self, pair):
        """Over all the tests before."""
        stats = pair.forwarder.stats()
        assert not pair.forwarder.findings()
        assert full_checksums(stats) == 0 == pair.forwarder.full_checksum_calls
        ports = stats["ports"]
        # A guest that its core does not get to leaves its ring full; nothing else may be missing.
        lost = {name: ports[name]["drops"].get("transmit_full", 0) for name in "ab"}
        assert lost == {name: sum(ports[name]["drops"].values()) for name in "ab"}
        checksum = stats["checksum"]
        assert 0 <= checksum["rx"]["partial"] - checksum["tx"]["partial"] <= sum(lost.values())
        assert checksum["tx"]["partial"] > 0
        for here, there in ("ab", "ba"):
            assert 0 <= ports[here]["rx_superframes"] - ports[there]["tx_superframes"] <= lost[there]
            assert ports[there]["tx_superframes"] > 0
        program = stats["xdp"]["count"]
        assert program["packets"] == sum(port["rx_packets"] for port in ports.values())
        assert program["written"] == program["looked"] == program["aborted"] == 0


class TestFull:
    """b is promised finished packets of at most the MTU, although it negotiated everything."""
    pair = pair_behind(deliver_to_b="full")

    @pytest.mark.parametrize("case", (tcp_small, udp))
    def test_b_receives_finished_packets(self, pair, case):
        seen = case(pair, pair.a)
        assert seen.partial == seen.superframes == 0

    def test_b_receives_superframes_cut(self, pair):
        with pair.no_errors():
            frames, _ = pair.tcp(pair.a, 20 * MEGABYTE, frames=2000, larger=1000)
        seen = pair.judge(frames)
        assert seen.partial == seen.superframes == 0
        assert max(len(frame.data) for frame in frames) == 14 + MTU
        assert pair.forwarder.stats()["checksum"]["software_full"]["segment"] > 0

    def test_a_receives_superframes(self, pair):
        seen = tcp_bulk(pair, pair.b)
        assert seen.partial == seen.superframes == len(seen.frames)

    def test_counters_agree_with_the_uprobe(self, pair):
        assert not pair.forwarder.findings()


class TestPlanted:
    """A wrong seed, planted on purpose, fails each case."""
    pair = pair_behind(**PLANTED)

    @pytest.mark.parametrize("case", (tcp_bulk, tcp_small, udp))
    @pytest.mark.parametrize("name", "ab")
    def test_captures_show_it(self, pair, case, name):
        with pytest.raises(Violation) as violation:
            case(pair, getattr(pair, name))
        assert violation.value.kinds >= {"frames", "tshark"}

    def test_the_kernel_behind_b_sees_it(self, pair):
        with pytest.raises(Violation) as violation:
            tcp_outward(pair, MEGABYTE // 4, seconds=5)
        assert violation.value.kinds == {"kernel"}


class TestPlantedFull:
    pair = pair_behind(deliver_to_b="full", **PLANTED)

    @pytest.mark.parametrize("case", (tcp_small, udp))
    def test_b_sees_it(self, pair, case):
        with pytest.raises(Violation) as violation:
            case(pair, pair.a)
        assert violation.value.kinds == {"kernel"}
