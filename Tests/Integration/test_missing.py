"""What the machine does not give: memory, permission, /dev/net/tun, a core, a socket. One sentence each, with what to
do; nothing was started, and nothing is left."""

import os
import shutil
import socket
import subprocess

import pytest

from lab import hugepages, owner
from lab.daemon import REPOSITORY, Daemon, binary, ini, polling_core

NULL = {"port a": {"driver": "null"}, "port b": {"driver": "null"}, "wire w": {"ports": "a b"}}
TAP = {"port a": {"driver": "tap", "interface": "apus-missing0"}, "port b": {"driver": "null"}, "wire w": {"ports": "a b"}}
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
WITHOUT_TUN = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "-"]


@pytest.fixture
def directory():
    path = owner.temporary_directory()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def start(directory, sections, apus=None, prefix=(), status=1) -> str:
    """The sentence with which the daemon gives up; its words for operators only, not its library's."""
    common = {"name": directory.name, "lcores": polling_core(), "memory": "64M", "hugepages": "off", "stats-socket": directory / "stats.sock"}
    file = directory / owner.CONFIGURATION
    file.write_text(ini(sections | {"apus": common | (apus or {})}))
    done = subprocess.run([*map(str, prefix), binary(), file], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == status, done.stderr
    begins = "apus: " if status == 1 else f"{file}:"
    said = [line.removeprefix(begins) for line in done.stderr.splitlines() if line.startswith(begins)]
    assert len(said) == 1, done.stderr
    print(said[0])
    return said[0]


def test_more_memory_than_there_is(directory):
    sentence = start(directory, NULL, {"memory": "1024G"})
    assert "[apus] memory asks for 1048576 MB" in sentence and "lower it" in sentence


def test_no_hugepages(directory):
    with hugepages.Reserved(0):
        sentence = start(directory, NULL, {"memory": "64G", "hugepages": "on"})
    assert "hugepages = on needs 65536 MB" in sentence and "hugepages = auto" in sentence


def as_nobody(directory, monkeypatch):
    """Copies that a user without rights may run, wherever the originals lie."""
    for name in ("apus", "apus-loader"):
        shutil.copy(binary().with_name(name), directory)
    monkeypatch.setenv("APUS_BINARY", str(directory / "apus"))
    os.chown(directory, 65534, 65534)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return NOBODY


def test_no_permission_for_a_tap(directory, monkeypatch):
    sentence = start(directory, TAP, prefix=as_nobody(directory, monkeypatch))
    assert "/dev/net/tun" in sentence and "run as root" in sentence


def test_no_permission_for_programs(directory, monkeypatch):
    nobody = as_nobody(directory, monkeypatch)
    shutil.copy(REPOSITORY / ".build/bpf/count.o", directory)
    sentence = start(directory, NULL | {"xdp c": {"object": directory / "count.o", "ports": "a"}}, prefix=nobody)
    assert "may not load BPF programs" in sentence and "run with CAP_BPF" in sentence


def test_no_dev_net_tun(directory):
    sentence = start(directory, TAP, prefix=WITHOUT_TUN)
    assert "cannot create the tap device" in sentence and "load the tun module" in sentence


def test_a_tap_that_is_taken(directory):
    subprocess.run(["ip", "link", "add", "apus-missing0", "type", "veth", "peer", "name", "apus-missing1"], check=True)
    try:
        sentence = start(directory, TAP)
    finally:
        subprocess.run(["ip", "link", "del", "apus-missing0"], check=True)
    assert "choose a name that no other device has" in sentence


def test_no_such_namespace(directory):
    sections = TAP | {"port a": TAP["port a"] | {"netns": "apus-nowhere"}}
    assert "ip netns add apus-nowhere" in start(directory, sections)


def test_no_such_core(directory):
    assert "lcores" in start(directory, NULL, {"lcores": 4000}, status=2)


def test_a_core_that_is_not_ours(directory):
    """Taken away by affinity: nothing is started on it."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    sentence = start(directory, NULL, {"lcores": cores[1]}, prefix=["taskset", "--cpu-list", cores[0]], status=2)
    assert "lcores" in sentence


@pytest.mark.parametrize("what,words", [("directory", "is no socket"), ("file", "is no socket"), ("used", "in use"), ("nowhere", "choose another path")])
def test_a_stats_socket_that_cannot_be(directory, what, words):
    path = directory / "stats.sock"
    with socket.socket(socket.AF_UNIX) as other:
        if what == "directory":
            path.mkdir()
        elif what == "file":
            path.touch()
        elif what == "used":
            path = directory / "other.sock"
            other.bind(str(path))
            other.listen()
        else:
            (directory / "file").touch()
            path = directory / "file" / "stats.sock"
        sentence = start(directory, NULL, {"stats-socket": path})
    assert words in sentence and str(path.parent if what == "nowhere" else path) in sentence


@pytest.mark.parametrize("what,words", [("file", "is no socket"), ("used", "another process listens"), ("nowhere", "check that its directory exists")])
def test_a_vhost_socket_that_cannot_be(directory, what, words):
    path = directory / "v.sock"
    with socket.socket(socket.AF_UNIX) as other:
        if what == "file":
            path.touch()
        elif what == "used":
            other.bind(str(path))
            other.listen()
        else:
            path = directory / "nowhere" / "v.sock"
        sentence = start(directory, {"port a": {"driver": "vhost-user", "path": path}, "port b": {"driver": "null"}, "wire w": {"ports": "a b"}})
    assert words in sentence and str(path) in sentence


def test_the_name_of_a_running_daemon(directory):
    """Two of one name would share their files. (With hugepages DPDK keeps none; there the stats socket tells.)"""
    with Daemon(NULL | {"apus": {"hugepages": "off"}}, binary()) as daemon:
        sentence = start(directory, NULL, {"name": daemon.name})
    assert daemon.name in sentence and "no second daemon of the name" in sentence


@pytest.mark.parametrize("tool,words", [("apt-get", "no archive answers"), ("meson", "no such build")])
def test_no_vhost_library_from_source(directory, tool, words):
    """Without the distribution's source, or what compiles it, a build goes on with the installed library and says so;
    one of an older version goes."""
    tools, beside = directory / "tools", directory / "release"
    tools.mkdir()
    old = beside / "glibc-hwcaps/x86-64-v3"
    old.mkdir(parents=True)
    (old / "librte_vhost.so.23").touch()
    (tools / tool).write_text(f"#!/bin/sh\necho 'E: {words}' >&2\nexit 100\n")
    (tools / tool).chmod(0o755)
    done = subprocess.run([REPOSITORY / "tools/vhost-library", beside], capture_output=True, text=True, timeout=300,
                          env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    assert words in done.stderr and "none made" in done.stderr and "the installed one does" in done.stderr, done.stderr
    assert list(beside.iterdir()) == []
