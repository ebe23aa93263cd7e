"""Whose is what: everything the laboratory makes carries its process id, so that leftovers of dead runs are known.

Names are `apus-PID-...` (namespaces, temporary directories) or `apusPIDx` (devices, at most 15 bytes).
"""

import os
import pathlib
import re
import shutil
import signal
import tempfile

from lab import process

_NAMED = re.compile(r"^apus-(\d+)-")
NAMESPACES = pathlib.Path("/run/netns")
RUNTIME = pathlib.Path("/run/apus")
TEMPORARY = pathlib.Path(tempfile.gettempdir())
CONFIGURATION = "apus.ini"


def name(label: str) -> str:
    return f"apus-{os.getpid()}-{label}"


def device_name(label: str) -> str:
    return f"apus{os.getpid()}{label}"


def owner_of(entry: str) -> int | None:
    found = _NAMED.match(entry)
    return int(found[1]) if found else None


def alive(pid: int) -> bool:
    """A process that is not Python got the number of a dead run."""
    try:
        return "python" in os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False


def temporary_directory() -> pathlib.Path:
    return pathlib.Path(tempfile.mkdtemp(prefix=name(""), dir=TEMPORARY))


def _entries(directory: pathlib.Path, wanted) -> list[pathlib.Path]:
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if (pid := owner_of(path.name)) and wanted(pid))


def _dead(pid: int) -> bool:
    return not alive(pid)


def reap():
    """Removes what dead runs left.

    Their children died with them, and devices with the children or the namespaces; but a daemon that has changed its
    credentials does not get the death signal any more, so those are looked for.
    """
    from lab import hugepages, uprobe  # they name their things through this module
    for pid, _ in _daemons(_dead):
        os.kill(pid, signal.SIGKILL)
    for path in _entries(NAMESPACES, _dead):
        process.call("ip", "netns", "del", path.name)
    uprobe.reap(_dead)
    for path in _entries(TEMPORARY, _dead) + _entries(RUNTIME, _dead):
        if os.path.ismount(path):  # a tracefs of its own, see uprobe.py
            process.call("umount", path)
        shutil.rmtree(path, ignore_errors=True)
    hugepages.reap()


def remains(pid: int | None = None) -> list[str]:
    """What a process (this one if none is named) has made and not yet removed."""
    from lab import hugepages, uprobe
    pid = pid or os.getpid()
    found = [str(path) for place in (NAMESPACES, TEMPORARY, RUNTIME) for path in _entries(place, pid.__eq__)]
    found += [f"device {path.name}" for path in pathlib.Path("/sys/class/net").glob(f"apus{pid}[!0-9]*")]
    found += [f"daemon {process} of {owner}" for process, owner in _daemons(pid.__eq__)]
    found += [f"mount {line.split()[1]}" for line in open("/proc/mounts") if f"{TEMPORARY}/apus-{pid}-" in line]
    found += [f"child {child}" for child in _children(pid)]
    return found + uprobe.remains(pid) + hugepages.remains(pid)


def _daemons(wanted):
    """Processes with the configuration of some run as an argument: their id and the run's."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = [pathlib.Path(word) for word in path.read_text(errors="replace").split("\0")]
        except OSError:
            continue
        for word in words:
            if word.name == CONFIGURATION and word.parent.parent == TEMPORARY:
                if (run := owner_of(word.parent.name)) and wanted(run):
                    yield int(path.parent.name), run


def _children(parent: int) -> list[int]:
    children = []
    for path in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            children += [int(pid) for pid in path.read_text().split()]
        except OSError:
            continue
    return children
