"""The oracle passes good traffic and fails each fault, at a wire of its own (lab/standin.py)."""

import pathlib

import pytest

from lab import oracle, session
from lab.bench import Bench, Case

STANDIN = pathlib.Path(__file__).parent / "lab/standin.py"

# Fault, whether the last hop is a router that finishes checksums, and the checks that must notice.
# At `offload` nobody but the oracle notices a wrong seed; behind the router the far kernel does too.
FAULTS = [
    ("wrong-seed", False, {"frames", "tshark"}),
    ("wrong-start", False, {"frames", "tshark"}),
    ("corrupted-payload", False, {"frames", "tshark", "kernel"}),
    ("unfinished", False, {"frames", "tshark", "kernel"}),
    ("lost-gso", False, {"frames"}),
    ("lost-frame", False, {"conservation"}),
    ("wrong-seed", True, {"frames", "tshark", "kernel"}),
]


def bench(fault: str | None, forwarded: bool, timeout: float) -> Bench:
    environment = {"STANDIN_PLANT": fault} if fault else {}
    return Bench(Case(forwarded=forwarded), STANDIN, environment, timeout=timeout, count_calls=False)


@pytest.mark.parametrize("forwarded", [False, True], ids=["direct", "forwarded"])
def test_good_traffic_passes(forwarded):
    with bench(None, forwarded, timeout=10) as good:
        session.exercise(good)
        verdict = oracle.judge(good, frame_count_min=500)
    for seen in verdict.arrivals[:2]:
        # All but what TCP answers without a connection: acknowledgements in TIME_WAIT, resets.
        assert seen.partial > 0.98 * len(seen.finished), "the kernel sends partial packets into a tap"
        assert seen.superframe_mean > 30_000
    if forwarded:
        assert verdict.arrivals[2].partial == 0 and verdict.arrivals[2].superframes == 0


@pytest.mark.parametrize("fault, forwarded, kinds", FAULTS,
                         ids=[f"{fault}{'-forwarded' * forwarded}" for fault, forwarded, _ in FAULTS])
def test_fault_is_found(fault, forwarded, kinds):
    with bench(fault, forwarded, timeout=0.5) as faulty:
        session.touch(faulty)
        with pytest.raises(oracle.Violation) as found:
            oracle.judge(faulty, frame_count_min=1)
    assert kinds <= found.value.kinds, found.value
