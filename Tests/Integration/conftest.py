"""What every integration test relies on: signals become teardown, dead runs are reaped, nothing remains."""

import pathlib

import pytest

from lab import owner, scope


def pytest_configure(config):
    scope.catch_signals()


@pytest.fixture(scope="session", autouse=True)
def nothing_of_dead_runs():
    owner.reap()


@pytest.fixture(autouse=True)
def nothing_remains():
    before = _mounts()
    yield
    left = owner.remains() + [f"mount {mount}" for mount in sorted(_mounts() - before)]
    assert not left, "left behind: " + ", ".join(left)


def _mounts() -> set[str]:
    """Mount points a test can make. `ip netns` keeps /run/netns itself mounted for good."""
    lines = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    return {point for _, point, kind, *_ in lines if kind in ("hugetlbfs", "tracefs")}


def pytest_terminal_summary(terminalreporter):
    counts = {outcome: len(terminalreporter.getreports(outcome)) for outcome in ("passed", "failed", "error", "skipped")}
    terminalreporter.write_line("apus integration: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
