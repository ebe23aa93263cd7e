"""What every integration test relies on: signals become teardown, dead runs are reaped, nothing remains."""

import pytest

from lab import owner, scope


def pytest_configure(config):
    scope.catch_signals()


@pytest.fixture(scope="session", autouse=True)
def nothing_of_dead_runs():
    owner.reap()


@pytest.fixture(autouse=True)
def nothing_remains():
    yield
    left = owner.remains()
    assert not left, "left behind: " + ", ".join(left)


def pytest_terminal_summary(terminalreporter):
    counts = {outcome: len(terminalreporter.getreports(outcome)) for outcome in ("passed", "failed", "error", "skipped")}
    terminalreporter.write_line("apus integration: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
