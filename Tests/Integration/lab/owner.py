"""Whose is what: everything the laboratory makes carries its process id, so that leftovers of dead runs are known.

Names are `apus-PID-...` (namespaces, temporary directories) or `apusPIDx` (devices, at most 15 bytes).
"""

import os
import pathlib
import re
import shutil
import tempfile

from lab import process

_NAMED = re.compile(r"^apus-(\d+)-")
NAMESPACES = pathlib.Path("/run/netns")


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
    return pathlib.Path(tempfile.mkdtemp(prefix=name("")))


def _entries(directory: pathlib.Path, wanted) -> list[pathlib.Path]:
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if (pid := owner_of(path.name)) and wanted(pid))


def _dead(pid: int) -> bool:
    return not alive(pid)


def reap():
    """Removes what dead runs left: processes in their namespaces, the namespaces, directories, uprobes, huge pages.

    Their children died with them (`process.spawn`), and their devices with the children or the namespaces.
    """
    from lab import hugepages, uprobe  # they name their things through this module
    for path in _entries(NAMESPACES, _dead):
        process.call("ip", "netns", "del", path.name)
    uprobe.reap(_dead)
    for path in _entries(pathlib.Path(tempfile.gettempdir()), _dead):
        if os.path.ismount(path):  # a tracefs of its own, see uprobe.py
            process.call("umount", path)
        shutil.rmtree(path, ignore_errors=True)
    hugepages.reap()


def remains() -> list[str]:
    """What this process has made and not yet removed."""
    from lab import hugepages, uprobe

    def mine(pid: int) -> bool:
        return pid == os.getpid()
    found = [str(path) for path in _entries(NAMESPACES, mine) + _entries(pathlib.Path(tempfile.gettempdir()), mine)]
    found += [f"device {path.name}" for path in pathlib.Path("/sys/class/net").iterdir()
              if path.name.startswith(device_name(""))]
    found += [f"child {pid}" for pid in _children(os.getpid())]
    return found + uprobe.remains(mine) + hugepages.remains()


def _children(parent: int) -> list[int]:
    children = []
    for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
        try:
            children += [int(pid) for pid in (task / "children").read_text().split()]
        except (OSError, ValueError):
            continue
    return children
