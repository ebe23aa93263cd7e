#!/usr/bin/python3
"""`make bench-forward`: packets a second of one polling core, beside DPDK's testpmd and Open vSwitch.

Every forwarder runs alternately on the same core, its peer on another; whoever is not being measured is stopped. What
counts are ratios of neighbours in time, since a machine's own speed drifts.
"""

import argparse
import functools
import os
import pathlib
import shutil
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "Tests/Integration"))

import core  # noqa: E402
from lab import hugepages, owner, scope  # noqa: E402
from lab.daemon import DaemonFailed, binary, installed_libraries, polling_core  # noqa: E402
from contestants import MEGABYTES, Apus, Pair, TestpmdForwarder  # noqa: E402
from estimate import estimate  # noqa: E402
from openvswitch import OpenVSwitch, unpacked  # noqa: E402

# Apus has a vhost library of its own where it could be made; installed: with the one that all others have.
ALL = ["apus", "apus-installed", "io", "macswap", "csum", "ovs"]


def main() -> int:
    arguments = argparse.ArgumentParser(description="Packets a second of one core, and ratios, for each frame size.")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[64, 512, 1500], help="bytes of a frame, without its check sequence")
    arguments.add_argument("--rounds", type=int, default=41, help="times each forwarder is measured (6 at least)")
    arguments.add_argument("--seconds", type=float, default=0.1, help="length of a measurement")
    arguments.add_argument("--forwarders", nargs="+", default=ALL, help=f"of {', '.join(ALL)}, and apus-wire")
    arguments.add_argument("--apus", type=pathlib.Path, nargs="+", help="executables, where not the release build; more than one are compared")
    arguments.add_argument("--realtime", action="store_true", help="before all other work of the machine, where it has some")
    chosen = arguments.parse_args()
    if os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2:
        print("The comparison needs root and two cores.", file=sys.stderr)
        return 1
    scope.catch_signals()
    core.prefer(os.getpid())
    try:
        owner.reap()
        for number, bytes in enumerate(chosen.sizes):
            report(bytes, *measured(bytes, chosen), is_first=number == 0)
        if _disturbed:
            print(f"{len(_disturbed)} measurements were disturbed: others had up to {max(_disturbed):.0%} of a core meanwhile (--realtime comes before them)")
    except scope.Interrupted as interruption:
        return 128 + interruption.number
    except (DaemonFailed, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def measured(bytes: int, chosen):
    """Packets a second by name, a value a round, and what shows who was waiting for whom."""
    polling = polling_core()
    other = min(os.sched_getaffinity(0) - {polling})
    with scope.Scope() as things:
        # Two processes each; what EAL itself wants is small.
        makers = contestants(chosen, polling, other, things)
        things.enter_context(hugepages.Reserved(len(makers) * (2 * MEGABYTES // 2 + 16)))
        pairs = [started(lambda: Pair(name, make(), bytes, (polling, other), chosen.realtime), things) for name, make in makers.items()]
        rates = {pair.name: [] for pair in pairs}
        if chosen.realtime:
            things.callback(core.make_ordinary, os.getpid())
            core.make_realtime(os.getpid(), "")
        # Away from the core that is measured; children were started free to choose.
        os.sched_setaffinity(0, {other})
        things.callback(os.sched_setaffinity, 0, {other, polling})
        for round in range(chosen.rounds):
            # Nobody is always first, or always behind the same one.
            for pair in pairs[round % len(pairs):] + pairs[:round % len(pairs)]:
                rates[pair.name].append(undisturbed(pair, chosen.seconds))
        evidence = {}
        for pair in pairs:
            busy = [sum(cycles) for cycles in zip(*pair.busy)]
            evidence[pair.name] = estimate(pair.busy_of_peer).median, busy[0] / busy[1] if busy else None
    return rates, evidence


def started(make, things: scope.Scope, attempts: int = 3) -> Pair:
    """Open vSwitch makes its pool when its first guest comes, tries it too large, and has meanwhile nothing left for the
    second one's rings: now and then that guest is turned away. (A pool for each port would prevent it, and costs it 15 % at
    1500 bytes.)"""
    for attempt in range(attempts):
        try:
            return things.enter_context(make())
        except RuntimeError as error:
            if attempt == attempts - 1:
                raise
            print(f"{str(error).splitlines()[0]}: once more")


def undisturbed(pair: Pair, seconds: float, attempts: int = 5) -> float:
    """Where others took more than a fiftieth of a core, the attempt says nothing about anybody."""
    for _ in range(attempts):
        rate, waited = pair.measure(seconds / 4, seconds)
        if waited < 0.02:
            return rate
    _disturbed.append(waited)
    return rate


_disturbed: list[float] = []


def contestants(chosen, polling: int, other: int, things: scope.Scope) -> dict:
    makers = {}
    for name in chosen.forwarders:
        if name.startswith("apus"):
            joint = "wire" if name == "apus-wire" else "bridge"
            environment = installed_libraries() if name == "apus-installed" else {}
            for number, executable in enumerate(chosen.apus or [binary()]):
                makers[name + f"-{number}" * (number > 0)] = functools.partial(Apus, executable, polling, joint, environment)
        elif name == "ovs":
            root = unpacked(REPOSITORY / ".build/openvswitch")
            makers[name] = lambda: OpenVSwitch(root, directory(things), polling, other, MEGABYTES)
        else:
            makers[name] = lambda name=name: TestpmdForwarder(name, polling, other)
    return makers


def directory(things: scope.Scope) -> pathlib.Path:
    path = owner.temporary_directory()
    things.callback(shutil.rmtree, path, ignore_errors=True)
    return path


def report(bytes: int, rates: dict[str, list[float]], evidence: dict, is_first: bool):
    if is_first:
        print("bytes  forwarder      Mpps  ns/packet   apus / it (95 % confidence)   busy: peer   forwarder")
    reference = next(name for name in rates if name.startswith("apus"))
    for name, values in rates.items():
        middle = estimate(values).median
        ratio = estimate([ours / theirs for ours, theirs in zip(rates[reference], values)])
        peer, busy = evidence[name]
        words = f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" if name != reference else ""
        print(f"{bytes:5}  {name:12}{middle / 1e6:7.2f}{1e9 / middle:11.1f}   {words:30}{peer:10.1%}"
              + (f"{busy:12.1%}" if busy is not None else "") + ("   waited for its peer" if peer > 0.9 else ""))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
