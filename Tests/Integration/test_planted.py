"""The oracle against a build that is wrong on purpose: APUS_PLANT makes it seed wrongly at egress.

A case that passes here would have passed with the bug, and is worth nothing.
"""

import os
import pathlib

import pytest

from lab import daemon, oracle, session
from lab.bench import Bench, Case
from test_tcp_matrix import FORWARDED, MATRIX



@pytest.fixture(scope="module")
def planted() -> pathlib.Path:
    default = daemon.REPOSITORY / ".build-planted/release/apus"
    return daemon.present(os.environ.get("APUS_PLANTED_BINARY", default), "APUS_PLANTED_BINARY")


@pytest.mark.parametrize("case", MATRIX + FORWARDED, ids=str)
def test_planted_seed_fails(case: Case, planted):
    with Bench(case, planted, {"APUS_PLANT": "wrong-seed"}, timeout=0.3) as bench:
        session.touch(bench)
        with pytest.raises(oracle.Violation) as found:
            oracle.judge(bench, frame_count_min=1)
    assert {"frames", "tshark"} <= found.value.kinds, found.value
    # What the reference modes have finished meets the fault only where it is seeded again: not at `deliver = full`.
    for protocol in ("TCP", "UDP") if case.mode == "lazy" or case.deliver == "offload" else ("TCP",):
        assert any(protocol in finding for finding in found.value.findings["frames"]), f"no wrong {protocol} seen"


def test_a_lost_buffer_is_the_exit_status(planted):
    """Else "no buffer is missing", which so many tests read from it, would say nothing."""
    sections = {"port a": {"driver": "null"}, "port b": {"driver": "null"}, "wire w": {"ports": "a b"}}
    with pytest.raises(daemon.DaemonFailed) as failure:
        with daemon.Daemon(sections, planted, {"APUS_PLANT": "lost-buffer"}):
            pass
    assert "exit status 1" in str(failure.value) and "1 packet buffers are missing (1 small, 0 large)" in str(failure.value)


def test_the_same_build_without_the_fault_passes(planted):
    """Else the cases above could fail for any reason."""
    with Bench(Case("count"), planted) as bench:
        session.exercise(bench)
        oracle.judge(bench)
