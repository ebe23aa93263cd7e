"""TCP and UDP between two kernels, across each program, in each mode, to receivers with and without offload.

A program that maintains no checksum, one that maintains it, and three that do not need to: every receiver gets only
right checksums, and `lazy` computes none in full that the receiver's port did not ask for.
"""

import pytest

from lab import oracle, session
from lab.bench import Bench, Case

PROGRAMS = ("count", "macswap", "nat", "nat_wrong")
MODES = ("lazy", "eager", "full")
DELIVERIES = ("offload", "full")

# Without a program there is no mode.
MATRIX = [Case("none", deliver=deliver) for deliver in DELIVERIES]
MATRIX += [Case(program, mode, deliver) for program in PROGRAMS for mode in MODES for deliver in DELIVERIES]
FORWARDED = [Case(program, forwarded=True) for program in ("none", *PROGRAMS)]
FORWARDED += [Case(program, mode, forwarded=True) for program in ("nat", "nat_wrong") for mode in ("eager", "full")]


@pytest.mark.parametrize("case", MATRIX + FORWARDED, ids=str)
def test_case(case):
    with Bench(case) as bench:
        session.exercise(bench, bulk_bytes(case))
        verdict = oracle.judge(bench, frame_count_min=500)
    check_arrivals(case, verdict)
    check_causes(case, verdict.stats["checksum"]["software_full"])


def bulk_bytes(case: Case) -> int:
    """Superframes need some way to become large; verifying thousands of small frames takes long."""
    return session.BULK_BYTES if case.deliver == "offload" and not case.forwarded else 3 << 20


def check_arrivals(case: Case, verdict: oracle.Verdict):
    for seen in verdict.arrivals[:2]:
        if case.deliver == "full":
            assert seen.partial == 0 and seen.superframes == 0, "deliver = full sends finished packets"
        else:
            assert seen.partial > 0
            assert seen.superframe_mean > 30_000, "superframes arrive as they were sent"
    for beyond in verdict.arrivals[2:]:
        assert beyond.partial == 0 and beyond.superframes == 0, "the router's port has no offload"


def check_causes(case: Case, software_full: dict[str, int]):
    causes = {cause for cause, count in software_full.items() if count}
    if case.mode == "lazy":
        allowed = {"egress", "segment"} if case.deliver == "full" else set()
        assert causes <= allowed, software_full
    if case.mode == "eager" or (case.mode == "full" and case.nat):
        assert software_full["mode"] > 0, "the reference mode did not do its work"
    if case.deliver == "full":
        assert causes, "somebody must have finished these packets"
