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


def test_huge_pages_are_given_back():
    before, mounted = pages(), os.path.ismount("/dev/hugepages")
    with hugepages.Reserved(4):
        assert os.path.ismount("/dev/hugepages")
        with hugepages.Reserved(2):
            assert pages() >= before + 6
        assert pages() >= before + 4
    assert hugepages.remains() == []
    assert (pages(), os.path.ismount("/dev/hugepages")) == (before, mounted)


def pages() -> int:
    return int(pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").read_text())


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
        wait_until(lambda: not processes_naming(f"apus-{victim.pid}-"))
        owner.reap()  # what the next run does first
    assert traces_of(victim.pid) == []


def traces_of(pid: int) -> list[str]:
    places = [owner.NAMESPACES, pathlib.Path("/tmp"), pathlib.Path("/run/apus"), pathlib.Path("/sys/class/net")]
    found = [str(path) for place in places if place.is_dir() for path in place.iterdir() if str(pid) in path.name]
    found += processes_naming(f"apus-{pid}-")
    return found + [line for line in open("/proc/mounts") if f"apus-{pid}-" in line]


def processes_naming(text: str) -> list[str]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in (words := path.read_bytes()):
                found.append(words.replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
