"""2 MB pages: reserved on top of what is there, and given back.

Others may reserve at the same time, so only differences are taken back. One state file says who holds how many and
what was mounted; whoever comes first mounts, whoever goes last unmounts, and the dead hold nothing.
"""

import contextlib
import fcntl
import json
import os
import pathlib

from lab import owner, process
from lab.scope import Scope, shielded

_COUNT = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
_MOUNT = pathlib.Path("/dev/hugepages")
_STATE = pathlib.Path("/run/apus-lab.hugepages")


class Reserved:
    """Context manager: up to `count` pages more than before, `granted` in the end (memory may be fragmented)."""

    def __init__(self, count: int):
        self.count = count
        self.granted = None
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            self._scope.callback(self._give_back)
            with shielded(), _locked() as state:
                self.granted = _take(state, str(os.getpid()), self.count)
        return self

    def __exit__(self, *exception):
        self._scope.close()

    def _give_back(self):
        if self.granted is not None:
            with _locked() as state:
                _give_back(state, str(os.getpid()), self.granted)


def reap():
    """Gives back what dead processes hold."""
    with shielded(), _locked() as state:
        for user, pages in list(state.get("users", {}).items()):
            if not owner.alive(int(user)):
                _give_back(state, user, pages)


def remains(pid: int) -> list[str]:
    with _locked() as state:
        return [f"{pages} huge pages" for user, pages in state.get("users", {}).items() if user == str(pid)]


def _take(state: dict, user: str, count: int) -> int:
    if not state:
        mounted, made = _mount()
        state.update(users={}, mounted=mounted, made=made)
    granted = _grow(count)
    state["users"][user] = state["users"].get(user, 0) + granted
    return granted


def _give_back(state: dict, user: str, count: int):
    _grow(-count)
    state["users"][user] -= count
    if not state["users"][user]:
        del state["users"][user]
    if not state["users"]:
        _unmount(state["mounted"], state["made"])
        state.clear()


def _grow(by: int) -> int:
    """How many pages there are more than before; the kernel may grant fewer than asked."""
    before = int(_COUNT.read_text())
    _COUNT.write_text(str(max(0, before + by)))
    return int(_COUNT.read_text()) - before


@contextlib.contextmanager
def _locked():
    """The state, under a lock, written back at the end.

    The file is never removed: two processes could then hold locks on two files of one name.
    """
    with open(_STATE, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        state = json.loads(file.read() or "{}")
        try:
            yield state
        finally:
            file.seek(0)
            file.truncate()
            file.write(json.dumps(state))


def _mounted() -> bool:
    return any(line.split()[1:3] == [str(_MOUNT), "hugetlbfs"] for line in open("/proc/mounts"))


def _mount() -> tuple[bool, bool]:
    """What was mounted and made: undone by `_unmount`."""
    if _mounted():
        return False, False
    made = not _MOUNT.exists()
    _MOUNT.mkdir(exist_ok=True)
    process.call("mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "hugetlbfs", _MOUNT)
    return True, made


def _unmount(mounted: bool, made: bool):
    """Where somebody else has begun to use the mount, it stays."""
    with contextlib.suppress(process.CommandFailed, OSError):
        if mounted and _mounted():
            process.call("umount", _MOUNT)
        if made and not _mounted():
            _MOUNT.rmdir()
