"""Counts the calls of a function through tracefs: a second opinion on a counter of the forwarder.

It counts every process that runs this file. Events carry the owner's process id, and are enabled in a trace instance
of their own, so that the global trace stays as it is.
"""

import contextlib
import itertools
import os
import pathlib

from lab import elf, owner, process
from lab.scope import Scope

FULL_CHECKSUM = "apus_full_checksum"
_serial = itertools.count(1)


class Uprobe:
    """Context manager; `hits` counts from its entry."""

    def __init__(self, binary: pathlib.Path, symbol: str = FULL_CHECKSUM):
        self._binary, self._symbol = pathlib.Path(binary).resolve(), symbol
        self._group = f"apus_{os.getpid()}"
        self._event = f"{symbol}_{os.getpid()}_{next(_serial)}"
        self._scope = Scope()

    def __enter__(self):
        with self._scope.building():
            offset = elf.file_offset(self._binary, self._symbol)
            self._tracing = self._scope.enter_context(_tracefs())
            self._scope.callback(_remove, self._tracing, self._group, self._event)
            _append(self._tracing, f"p:{self._group}/{self._event} {self._binary}:{offset:#x}")
            instance = self._tracing / "instances" / self._event
            instance.mkdir()
            (instance / "buffer_size_kb").write_text("4")
            (instance / "events" / self._group / self._event / "enable").write_text("1")
        return self

    def __exit__(self, *exception):
        self._scope.close()

    @property
    def hits(self) -> int:
        for line in (self._tracing / "uprobe_profile").read_text().splitlines():
            if self._event in line.split():
                return int(line.split()[-1])
        raise LookupError(f"{self._event} is not in uprobe_profile")


def reap(is_dead):
    """Removes the events of dead owners."""
    for tracing in _mounts()[:1]:
        for pid, group, event in _events(tracing):
            if is_dead(pid):
                _remove(tracing, group, event)


def remains(pid: int) -> list[str]:
    return [f"uprobe {event}" for tracing in _mounts()[:1] for owner, _, event in _events(tracing) if owner == pid]


def _events(tracing: pathlib.Path):
    for line in (tracing / "uprobe_events").read_text().splitlines():
        group, _, event = line.split()[0].partition(":")[2].partition("/")
        if group.startswith("apus_"):
            yield int(group.removeprefix("apus_")), group, event


def _remove(tracing: pathlib.Path, group: str, event: str):
    instance = tracing / "instances" / event
    if instance.is_dir():
        enable = instance / "events" / group / event / "enable"
        if enable.exists():
            enable.write_text("0")
        instance.rmdir()
    if any(entry[1:] == (group, event) for entry in _events(tracing)):
        _append(tracing, f"-:{group}/{event}")


def _append(tracing: pathlib.Path, line: str):
    """Not open(..., "a"), which seeks; and never without O_APPEND, which removes everybody's events."""
    descriptor = os.open(tracing / "uprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, (line + "\n").encode())
    finally:
        os.close(descriptor)


def _mounts() -> list[pathlib.Path]:
    return [pathlib.Path(line.split()[1]) for line in open("/proc/mounts") if line.split()[2] == "tracefs"]


@contextlib.contextmanager
def _tracefs():
    """The mounted tracefs, or one of our own for as long as we need it."""
    if mounts := _mounts():
        yield mounts[0]
        return
    with Scope() as scope:
        place = owner.temporary_directory()
        scope.callback(place.rmdir)
        scope.callback(lambda: os.path.ismount(place) and process.call("umount", place))
        process.call("mount", "-t", "tracefs", "tracefs", place)
        yield place
