"""The demo shows what it promises, and takes everything back, also when stopped in the middle."""

import signal
import subprocess
import sys
import time

import pytest

from lab import owner
from lab.daemon import REPOSITORY

DEMO = [sys.executable, REPOSITORY / "demo/demo.py", "--rounds", "1", "--seconds", "1"]


def test_demo_ends_with_a_table():
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No receiver saw a wrong checksum." in done.stdout
    [computed] = [line for line in done.stdout.splitlines() if line.startswith("checksums computed in full")]
    assert computed.split()[-3] == "0" and computed.split()[-2] != "0"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.1, 1.5])
def test_interrupted_demo_leaves_nothing(number, delay):
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        demo.stdout.readline()
        time.sleep(delay)
        demo.send_signal(number)
        demo.wait(20)
        assert demo.returncode == 128 + number, demo.stderr.read()
    assert owner.remains(demo.pid) == []
