#!/usr/bin/python3
"""`make demo`: the kernel's TCP across Apus with a program attached, and where its checksums are computed.

Two namespaces, a tap port in each, `configs/demo.ini` between them. The same transfer runs three ways, in turns:
`lazy` (checksums stay unfinished, as the sender left them), `eager` (Apus finishes them before the program sees the
packet), and with the senders' offloads switched off.
"""

import argparse
import configparser
import dataclasses
import os
import pathlib
import statistics
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "Tests/Integration"))

from lab import daemon, hugepages, iperf, oracle, owner, scope, traffic  # noqa: E402
from lab.capture import Capture  # noqa: E402
from lab.netns import Namespace  # noqa: E402

CONFIGURATION = REPOSITORY / "configs/demo.ini"
LEFT, RIGHT = "10.0.0.1", "10.0.0.2"
LEFT_MAC, RIGHT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
WAYS = ("lazy", "eager", "offloads off")
SAMPLE_BYTES = 4 << 20
HUGE_PAGES = 96


@dataclasses.dataclass
class Run:
    gigabits: float
    cycles_per_kilobyte: float
    superframes: int
    superframe_bytes: float
    arrived_partial: int
    left_partial: int
    computed: int
    checked: int
    wrong: int


def main() -> int:
    arguments = argparse.ArgumentParser(description="Shows where checksums are computed, and where not.")
    arguments.add_argument("--seconds", type=int, default=2, help="length of a transfer")
    arguments.add_argument("--rounds", type=int, default=3, help="transfers each way")
    chosen = arguments.parse_args()
    if os.geteuid() != 0:
        print("The demo makes network namespaces and needs root.", file=sys.stderr)
        return 1
    scope.catch_signals()
    try:
        owner.reap()
        runs = measure(chosen.rounds, chosen.seconds)
    except scope.Interrupted as interruption:
        print("\nInterrupted; everything is cleaned up.", file=sys.stderr)
        return 128 + interruption.number
    except (daemon.DaemonFailed, traffic.TrafficFailed) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    show(runs)
    return 0 if as_promised(runs) else 1


def measure(rounds: int, seconds: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    print(f"TCP between two namespaces across Apus, program `count` attached, {seconds} seconds a transfer\n")
    with hugepages.Reserved(HUGE_PAGES):
        for round in range(1, rounds + 1):
            for way in WAYS:
                print(f"  round {round} of {rounds}  {way:12}", end=" ", flush=True)
                runs[way].append(transfer(way, seconds))
                print(f"{runs[way][-1].gigabits:6.2f} Gbit/s", flush=True)
    return runs


def transfer(way: str, seconds: int) -> Run:
    with Namespace("left") as left, Namespace("right") as right, daemon.Daemon(sections(left, right, way),
                                                                               daemon.binary()) as apus:
        devices = {left: owner.device_name("l"), right: owner.device_name("r")}
        left.configure(devices[left], LEFT_MAC, [f"{LEFT}/24"], {RIGHT: RIGHT_MAC})
        right.configure(devices[right], RIGHT_MAC, [f"{RIGHT}/24"], {LEFT: LEFT_MAC})
        if way == "offloads off":
            for namespace, device in devices.items():
                namespace.offloads(device, tx=False, tso=False, gso=False)
        sample = check_sample(left, right, devices[right])
        before = apus.settled_stats()
        gigabits = iperf.gigabits_per_second(left, right, RIGHT, seconds)
        after = apus.settled_stats()
        refused = sum(namespace.counters()["TcpInCsumErrors"] for namespace in (left, right))

    def grown(count) -> int:
        return count(after) - count(before)
    def received(stats) -> int:
        return sum(port["rx_bytes"] for port in stats["ports"].values())

    cycles = grown(lambda stats: sum(lcore["cycles_busy"] for lcore in stats["lcores"].values()))
    return Run(gigabits, cycles / (grown(received) / 1024), grown(lambda stats: sum(port["rx_superframes"] for port in stats["ports"].values())),
               sample.superframe_mean, grown(lambda stats: stats["checksum"]["rx"]["partial"]),
               grown(lambda stats: stats["checksum"]["tx"]["partial"]), grown(oracle.full_checksums),
               len(sample.finished), len(sample.findings) + refused)


def sections(left: Namespace, right: Namespace, way: str) -> dict[str, dict[str, str]]:
    """configs/demo.ini, with names that nobody else uses."""
    file = configparser.ConfigParser(inline_comment_prefixes=(";",))
    file.read(CONFIGURATION)
    result = {title: dict(section) for title, section in file.items() if title != "DEFAULT"}
    for key in ("name", "stats-socket"):
        del result["apus"][key]
    result["port left"] |= {"interface": owner.device_name("l"), "netns": left.name}
    result["port right"] |= {"interface": owner.device_name("r"), "netns": right.name}
    result["xdp count"] |= {"object": CONFIGURATION.parent / result["xdp count"]["object"],
                            "checksum": "eager" if way == "eager" else "lazy"}
    return result


def check_sample(left: Namespace, right: Namespace, device: str) -> oracle.Crossing:
    """A transfer before the measured one, each frame of which is completed and verified in plain Python.

    A receiver that was promised finished checksums does not look, so its own error counter would prove nothing.
    """
    with Capture(right, device) as arrivals:
        traffic.tcp_upload(traffic.Path(left, right, (RIGHT, 5201), (RIGHT, 5201)), SAMPLE_BYTES)
        return oracle.examine(arrivals.frames())


def show(runs: dict[str, list[Run]]):
    def row(title: str, cell):
        print(f"{title:38}" + "".join(f"{cell(runs[way]):>14}" for way in WAYS))

    def total(field: str):
        return lambda done: f"{sum(getattr(run, field) for run in done):,}"
    print()
    print(f"{'':38}" + "".join(f"{way:>14}" for way in WAYS))
    row("throughput, Gbit/s", lambda done: f"{statistics.median(run.gigabits for run in done):.2f}")
    row("Apus's work, cycles a kilobyte", lambda done: f"{statistics.median(run.cycles_per_kilobyte for run in done):,.0f}")
    row("superframes", total("superframes"))
    row("  bytes in one", lambda done: f"{statistics.mean(run.superframe_bytes for run in done):,.0f}")
    row("checksums that arrived partial", total("arrived_partial"))
    row("checksums that left partial", total("left_partial"))
    row("checksums computed in full by Apus", total("computed"))
    row("frames checked at the receiver", total("checked"))
    row("  of these wrong", total("wrong"))
    print("""
throughput       median of the rounds, as iperf3's receiver saw it. The sending and the receiving kernel share the other
                 core and are the bottleneck, so Apus's own work shows in its cycles (medians too) rather than here.
superframes      TCP packets of up to 64 KB that crossed Apus whole; without offloads everything has 1500 bytes. This and
                 all counts below are sums over the rounds.
arrived partial  packets whose sender left the checksum to whoever needs it; between namespaces nobody does.
left partial     packets that Apus handed on that way. The receiver knows it need not check them.
in full by Apus  packets whose every byte Apus had to sum: none in lazy, all partial ones in eager. Without offloads
                 the sending kernel has summed each packet itself.
checked          frames captured at the receiver, completed and verified by code that shares nothing with Apus.""")
    wrong = sum(run.wrong for done in runs.values() for run in done)
    print(f"\n{'No receiver saw a wrong checksum.' if not wrong else f'{wrong} WRONG CHECKSUMS reached a receiver.'}")


def as_promised(runs: dict[str, list[Run]]) -> bool:
    """What the table is there to show, as a test."""
    every = [run for done in runs.values() for run in done]
    return (not any(run.wrong for run in every) and all(run.checked for run in every)
            and not any(run.computed for run in runs["lazy"])
            and all(run.left_partial and run.superframe_bytes > 30_000 for run in runs["lazy"])
            and all(run.computed for run in runs["eager"]) and not any(run.superframes for run in runs["offloads off"]))


if __name__ == "__main__":
    sys.exit(main())
