"""The judge of a bench: nothing in it is the forwarder's own opinion of itself, except to be contradicted.

A receiver of offloaded packets checks nothing, so its error counters alone prove nothing: every frame that arrived is
completed and verified here, once in plain Python and once by tshark.
"""

import collections
import dataclasses

from lab import checksum, pcap, wire
from lab.bench import Bench
from lab.capture import GSO_ECN, GSO_TCPV4, GSO_TCPV6, Frame

MTU = 1500
_WRONG = ("TcpInCsumErrors", "UdpInCsumErrors", "IpInHdrErrors", "IpExtInCsumErrors", "IcmpInCsumErrors")
_SHOWN_MAX = 5


class Violation(AssertionError):
    """`kinds` are the checks that failed: frames, tshark, kernel, calls, conservation, devices, states, evidence."""

    def __init__(self, findings: dict[str, list[str]]):
        self.findings, self.kinds = findings, set(findings)
        super().__init__("\n".join(f"{kind}: {len(found)} findings\n  " + "\n  ".join(found[:_SHOWN_MAX])
                                   for kind, found in findings.items()))


@dataclasses.dataclass
class Crossing:
    """What one capture holds, in numbers."""
    frames: list[Frame] = dataclasses.field(repr=False)
    partial: int = 0
    superframes: int = 0
    superframe_bytes: int = 0
    finished: list[bytes] = dataclasses.field(default_factory=list, repr=False)  # completed where they were partial
    findings: list[str] = dataclasses.field(default_factory=list)

    @property
    def superframe_mean(self) -> float:
        """Bytes a superframe."""
        return self.superframe_bytes / max(1, self.superframes)


@dataclasses.dataclass
class Verdict:
    departures: list[Crossing]  # in the order of the bench's captures
    arrivals: list[Crossing]
    stats: dict


def judge(bench: Bench, frame_count_min: int = 10) -> Verdict:
    """Raises Violation, or returns the numbers for a test to assert on.

    `frame_count_min` frames with TCP or UDP at each place, or there was nothing to judge.
    """
    stats = bench.daemon.settled_stats()
    findings = collections.defaultdict(list)
    departures = [examine(capture.frames()) for capture in bench.departures]
    arrivals = [examine(capture.frames()) for capture in bench.arrivals]
    for capture in bench.departures + bench.arrivals:
        if capture.dropped:
            findings["evidence"].append(f"{capture.device}: capture lost {capture.dropped} frames")
    for capture, seen in zip(bench.arrivals, arrivals):
        findings["frames"] += [f"{capture.device}: {finding}" for finding in seen.findings]
        if len(seen.finished) < frame_count_min:
            findings["evidence"].append(f"{capture.device}: only {len(seen.finished)} frames of TCP and UDP")
    findings["tshark"] = ask_tshark(bench.daemon.directory, [frame for seen in arrivals for frame in seen.finished])
    findings["kernel"] = [f"{namespace.name}: {name} = {counters[name]}" for namespace in bench.namespaces
                          for counters in [namespace.counters()] for name in _WRONG if counters[name]]
    findings["calls"] = check_calls(stats, bench.full_checksum_calls)
    findings["conservation"] = check_conservation(stats)
    findings["devices"] = check_devices(stats, bench)
    _excuse(bench, departures, findings)
    lost = sum(namespace.device_counters(device)["tx_dropped"] for namespace, device in bench.devices.values())
    findings["states"] = check_states(stats, departures, arrivals[:len(departures)], lost)
    if findings := {kind: found for kind, found in findings.items() if found}:
        raise Violation(findings)
    return Verdict(departures, arrivals, stats)


def _excuse(bench: Bench, departures: list[Crossing], findings: dict[str, list[str]]):
    """Behind a NAT that leaves checksums wrong, what was sent finished may arrive wrong: nobody vouched for it, and
    the program's bytes stand. TCP sends so what belongs to no connection any more, a packet or two in some runs."""
    if bench.case.program != "nat_wrong":
        return
    finished = sum(len(seen.finished) - seen.partial for seen in departures)
    for kind in ("frames", "tshark", "kernel"):
        if len(findings[kind]) <= finished * len(bench.arrivals) and not any("partial" in finding for finding in findings[kind]):
            findings[kind] = []


def examine(frames: list[Frame]) -> Crossing:
    """Frames with TCP or UDP: metadata right, and checksum right once literally completed."""
    seen = Crossing(frames)
    for number, frame in enumerate(frames):
        try:
            packet = wire.parse(frame.data)
            if packet is None or not packet.has_l4:
                continue
            found = _metadata_problems(frame, packet)
            data = checksum.complete(frame.data, frame.start, frame.offset) if frame.partial else frame.data
        except wire.Malformed as error:
            seen.findings.append(f"frame {number}: malformed: {error}")
            continue
        found += checksum.problems(data)
        state = f"partial({frame.start}, {frame.offset})" if frame.partial else "finished"
        seen.findings += [f"frame {number}, {state}, {len(data)} bytes: {problem}" for problem in found]
        seen.finished.append(data)
        seen.partial += frame.partial
        seen.superframes += frame.superframe
        seen.superframe_bytes += frame.superframe * len(data)
    return seen


def _metadata_problems(frame: Frame, packet: wire.Packet) -> list[str]:
    found = []
    if frame.partial and (frame.start, frame.offset) != (packet.l4, packet.checksum_offset):
        found.append(f"start and offset should be {packet.l4}, {packet.checksum_offset}")
    if not frame.superframe:
        if len(frame.data) > packet.l3 + MTU:
            found.append(f"{len(frame.data) - packet.l3} bytes above the MTU without GSO")
        return found
    if not frame.partial:
        found.append("a superframe that is not partial")
    kind = {(wire.TCP, 4): GSO_TCPV4, (wire.TCP, 6): GSO_TCPV6}.get((packet.protocol, packet.version))
    if frame.gso_type & ~GSO_ECN != kind:
        found.append(f"GSO type {frame.gso_type} on {packet.describe(frame.data)}")
    headers = packet.l4 - packet.l3 + packet.l4_length - len(packet.payload(frame.data))
    if not 0 < frame.gso_size <= MTU - headers:
        found.append(f"GSO size {frame.gso_size} and {headers} bytes of headers do not fit the MTU")
    return found


def ask_tshark(directory, finished: list[bytes]) -> list[str]:
    """Findings where tshark calls a checksum bad, or did not verify one that it should have."""
    path = directory / "finished.pcap"
    pcap.write(path, [checksum.zero_as_zero(frame) for frame in finished])
    verdicts = pcap.verdicts(path)
    if len(verdicts) != len(finished):
        return [f"tshark read {len(verdicts)} of {len(finished)} frames"]
    findings = []
    for number, (frame, verdict) in enumerate(zip(finished, verdicts)):
        packet = wire.parse(frame)
        wanted = {"ip", "tcp" if packet.protocol == wire.TCP else "udp"} - ({"ip"} if packet.version == 6 else set())
        if any(verdict.get(protocol) != "good" for protocol in wanted):
            findings.append(f"frame {number}: {verdict or 'not verified'}: {packet.describe(frame)}")
    return findings


def check_calls(stats: dict, calls: int | None) -> list[str]:
    """Every full checksum counted has been one call of the summing function, but those DPDK did itself."""
    counted = full_checksums(stats) - stats["checksum"]["software_full"]["driver"]
    return [f"{counted} full checksums counted, {calls} calls seen"] if calls not in (None, counted) else []


def full_checksums(stats: dict) -> int:
    return sum(stats["checksum"]["software_full"].values())


def check_conservation(stats: dict) -> list[str]:
    """What came in and what was made of it (by cutting, by flooding) went out or was dropped with a reason."""
    ports = stats["ports"].values()
    received, sent = (sum(port[key] for port in ports) for key in ("rx_packets", "tx_packets"))
    dropped = sum(sum(port["drops"].values()) for port in ports)
    if all("created" in port for port in ports):
        # Below 0 where a cut superframe was dropped whole.
        created = sum(port["created"] for port in ports)
        return [] if received + created == sent + dropped else [f"{received} received, {created} made, {sent} sent, {dropped} dropped"]
    cut = sum(port["rx_superframes"] - port["tx_superframes"] for port in ports)
    if received == sent + dropped or (cut > 0 and received < sent + dropped):
        return []
    return [f"{received} received, {sent} sent, {dropped} dropped, {cut} superframes cut"]


def check_devices(stats: dict, bench: Bench) -> list[str]:
    """The kernel counted the same packets and bytes on the other side of each tap."""
    findings = []
    for label, (namespace, device) in bench.devices.items():
        kernel, port = namespace.device_counters(device), stats["ports"][label]
        for ours, theirs in (("rx", "tx"), ("tx", "rx")):
            for unit in ("packets", "bytes"):
                if port[f"{ours}_{unit}"] != kernel[f"{theirs}_{unit}"]:
                    findings.append(f"port {label}: {ours}_{unit} {port[f'{ours}_{unit}']}, "
                                    f"the kernel's {theirs}_{unit} {kernel[f'{theirs}_{unit}']}")
    return findings


def check_states(stats: dict, departures: list[Crossing], arrivals: list[Crossing], lost: int) -> list[str]:
    """The forwarder saw as many partial packets and superframes come and go as crossed its ports.

    `lost` is how many the kernel captured on their way out but then had no room for in the tap's queue.
    """
    findings = []
    for way, crossings, slack in (("rx", departures, lost), ("tx", arrivals, 0)):
        superframes = sum(port[f"{way}_superframes"] for port in stats["ports"].values())
        for what, counted, seen in (
                ("partial packets", stats["checksum"][way]["partial"], sum(crossing.partial for crossing in crossings)),
                ("superframes", superframes, sum(crossing.superframes for crossing in crossings))):
            if not counted <= seen <= counted + slack:
                findings.append(f"{way}: {counted} {what} counted, {seen} seen")
    return findings
