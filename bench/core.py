"""Who has a core, and who waits for it: what a measurement on a machine with other work has to know."""

import pathlib
import time


def prefer(pid: int):
    """Before whatever else wants the same cores. Every child of the laboratory is a session of its own, which the kernel
    weighs as one (sched(7), autogroup); where it does not, this is nothing."""
    group = pathlib.Path(f"/proc/{pid}/autogroup")
    if group.exists():
        group.write_text("-20")


class Waiting:
    """From now on: how long the busiest thread of a process was ready to run and did not."""

    def __init__(self, pid: int):
        self._tasks = pathlib.Path(f"/proc/{pid}/task")
        self._before, self._began = self._read(), time.monotonic()

    def _read(self) -> dict[str, tuple[int, int]]:
        times = {}
        for task in self._tasks.iterdir():
            ran, waited, _ = (task / "schedstat").read_text().split()
            times[task.name] = int(ran), int(waited)
        return times

    def share(self) -> float:
        now, seconds = self._read(), time.monotonic() - self._began
        _, waited = max((ran - self._before[task][0], waited - self._before[task][1])
                        for task, (ran, waited) in now.items() if task in self._before)
        return waited / 1e9 / seconds
