"""2 MB pages, reserved together and given back together.

One state file says what was there before and who uses how many. Whoever comes first records, whoever goes last
restores; users that died are not counted.
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
    """Context manager: `count` pages more than before. `granted` says how many there are in the end."""

    def __init__(self, count: int):
        self.count = count
        self.granted = 0
        self._scope = Scope()

    def __enter__(self):
        self._scope.callback(_change_users, os.getpid(), -self.count)
        self.granted = _change_users(os.getpid(), self.count)
        return self

    def __exit__(self, *exception):
        self._scope.close()


def reap():
    """Forgets dead users; the last one's pages go back."""
    if _STATE.exists():
        _change_users(os.getpid(), 0)


def remains() -> list[str]:
    with _locked() as state:
        mine = state.get("users", {}).get(str(os.getpid()), 0)
    return [f"{mine} huge pages"] if mine else []


def _change_users(pid: int, by: int) -> int:
    with shielded(), _locked() as state:
        users = {int(user): pages for user, pages in state.get("users", {}).items() if owner.alive(int(user))}
        users[pid] = max(0, users.get(pid, 0) + by)
        users = {user: pages for user, pages in users.items() if pages}
        if users and "original" not in state:
            state["original"] = int(_COUNT.read_text())
            state["mounted"], state["made"] = _mount()
        state["users"] = users
        if "original" in state:
            _COUNT.write_text(str(state["original"] + sum(users.values())))
            if not users:
                _unmount(state["mounted"], state["made"])
        return int(_COUNT.read_text())


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
            if state.get("users"):
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
    if mounted and _mounted():
        process.call("umount", _MOUNT)
    if made and _MOUNT.exists():
        _MOUNT.rmdir()
