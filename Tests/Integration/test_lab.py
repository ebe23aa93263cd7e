"""The laboratory itself: its second opinions count right, and nothing of it remains, however it ends."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from lab import hugepages, owner, uprobe

HERE = pathlib.Path(__file__).parent

# Builds a bench and sends bulk TCP for ever.
VICTIM = """
from lab import scope, session
scope.catch_signals()
from test_oracle import bench
with bench(None, True, timeout=10) as victim:
    print("running", flush=True)
    while True:
        session.exercise(victim)
"""


@pytest.mark.parametrize("calls", [0, 1, 7])
def test_uprobe_counts_calls(calls, tmp_path):
    """In a copy of the interpreter, so that no other process of the machine counts; minus what start-up calls."""
    copy = tmp_path / "python"
    shutil.copy(os.path.realpath("/usr/bin/python3"), copy)

    def hits(count: int) -> int:
        with uprobe.Uprobe(copy, "Py_GetVersion") as probe:
            work = f"import ctypes\nfor _ in range({count}): ctypes.pythonapi.Py_GetVersion()"
            subprocess.run([copy, "-S", "-c", work], check=True, env=os.environ | {"PYTHONHOME": "/usr"})
            return probe.hits
    assert hits(calls) - hits(0) == calls


def test_uprobe_mounts_tracefs_where_nobody_did(monkeypatch):
    monkeypatch.setattr(uprobe, "_mounts", list)
    with uprobe.Uprobe("/usr/bin/python3", "Py_GetVersion") as probe:
        assert any(found.startswith("mount ") for found in owner.remains())
        assert probe.hits >= 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_suite_that_is_stopped_leaves_nothing(number):
    """tools/suite: what the suite wrote to its temporary folder, and its processes, go with it."""
    work = 'sleep 1000 & touch "$TMPDIR/left"; echo "$TMPDIR" $!; wait'
    suite = subprocess.Popen([HERE.parent.parent / "tools/suite", "probe", "bash", "-c", work], stdout=subprocess.PIPE, text=True)
    assert suite.stdout.readline().startswith("== probe:")
    folder, sleeper = suite.stdout.readline().split()
    assert (pathlib.Path(folder) / "left").exists()
    suite.send_signal(number)
    assert suite.wait(timeout=20) == 128 + number and f"stopped by {number.name}" in suite.stdout.read()
    assert not pathlib.Path(folder).exists()
    # Gone, or a zombie that its new parent has not asked for yet.
    state = pathlib.Path(f"/proc/{sleeper}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def machine(monkeypatch, tmp_path) -> pathlib.Path:
    """A machine with 3 huge pages in a file, where nobody else reserves any. The mount is real."""
    for name in ("_COUNT", "_MOUNT", "_STATE"):
        monkeypatch.setattr(hugepages, name, tmp_path / name)
    (tmp_path / "_COUNT").write_text("3")
    yield tmp_path
    assert (tmp_path / "_COUNT").read_text() == "3" and not (tmp_path / "_MOUNT").exists()


def test_huge_pages_are_given_back(machine):
    with hugepages.Reserved(4) as first:
        assert first.granted == 4 and os.path.ismount(machine / "_MOUNT")
        with hugepages.Reserved(2):
            assert (machine / "_COUNT").read_text() == "9"
        assert (machine / "_COUNT").read_text() == "7" and os.path.ismount(machine / "_MOUNT")
        assert hugepages.remains(os.getpid()) == ["4 huge pages"]
    assert hugepages.remains(os.getpid()) == []


def test_huge_pages_of_the_dead_are_given_back(machine):
    work = """
import os, pathlib, signal, sys
from lab import hugepages
for name in ("_COUNT", "_MOUNT", "_STATE"):
    setattr(hugepages, name, pathlib.Path(sys.argv[1]) / name)
hugepages.Reserved(5).__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", work, machine], cwd=HERE)
    assert (machine / "_COUNT").read_text() == "8" and os.path.ismount(machine / "_MOUNT")
    hugepages.reap()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("delay", [0, 0.05, 0.3], ids=["while-building", "early", "in-traffic"])
def test_interrupted_run_leaves_nothing(number, delay):
    victim = subprocess.Popen([sys.executable, "-c", VICTIM], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with victim:
        if delay:
            victim.stdout.readline()
        else:
            time.sleep(0.15)  # imports take about 0.1 seconds, building as long again
        time.sleep(delay)
        victim.send_signal(number)
        victim.wait(20)
    assert victim.returncode != 0
    if number == signal.SIGKILL:
        owner.reap()  # what the next run does first
    assert owner.remains(victim.pid) == []
