"""Who has a core, and who waits for it: what a measurement on a machine with other work has to know."""

import os
import pathlib
import time

# Of everything here but the pollers, which would keep it from running otherwise.
_CONTROL, _POLLER = 3, 1


def make_realtime(pid: int, poller: str):
    """A process comes before all ordinary work, which keeps a twentieth of each core (sched(7), sched_rt_runtime_us): for
    machines that have something else to do."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(_POLLER if task.name == poller else _CONTROL))


def make_ordinary(pid: int):
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))


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
        return self._busiest()[1] / 1e9 / (time.monotonic() - self._began)

    def thread(self) -> str:
        return self._busiest()[2]

    def _busiest(self) -> tuple[int, int, str]:
        return max((ran - self._before[task][0], waited - self._before[task][1], task)
                   for task, (ran, waited) in self._read().items() if task in self._before)
