"""Maps of running programs: filled from files, read and changed by `apusctl map`; programs nobody verified; bpf_printk."""

import json
import struct
import subprocess
import time

import pytest

from lab import pcap
from lab.daemon import REPOSITORY, Daemon, DaemonFailed, binary
from lab.packets import ipv4, udp
from lab.wire import UDP

APUSCTL = REPOSITORY / ".build/release/apusctl"

PROGRAM = """
#include "parse.h"

struct rule { __be16 port; __u8 kind; __u8 log; __s32 weight; };

struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __be32); __type(value, struct rule); __uint(max_entries, 64); } rules SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 2); } seen SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } records SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); } targets SEC(".maps");

SEC("xdp") int rule(struct xdp_md *ctx)
{
    __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    if (data + 34 > end) return XDP_DROP;
    __u32 zero = 0, one = 1, source = *(__u32 *)(data + 26);
    __u64 *count = bpf_map_lookup_elem(&seen, &zero), mark = 0x1122334455667788;
    if (count) *count += 1;
    bpf_map_lookup_elem(&targets, &one);
    struct rule *rule = bpf_map_lookup_elem(&rules, &source);
    if (!rule) return XDP_PASS;
    if (rule->log) {
        bpf_printk("weight %d", rule->weight);
        bpf_ringbuf_output(&records, &mark, sizeof(mark), 0);
        bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &mark, sizeof(mark));
    }
    return rule->kind;
}

/* No kernel takes it: it writes as far behind the packet as the packet says. */
SEC("xdp") int wild(struct xdp_md *ctx)
{
    __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    if (data + 34 > end) return XDP_DROP;
    data[data[29] * 4096] = 1;
    return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The object, compiled as the project compiles its own."""
    folder = tmp_path_factory.mktemp("maps")
    for name in ("parse.h", "Makefile"):
        (folder / name).write_text((REPOSITORY / "programs" / name).read_text())
    (folder / "rule.bpf.c").write_text(PROGRAM)
    (folder / "large.bpf.c").write_text(large(steps=400))
    subprocess.run(["make", "-s", "-C", folder, f"BPF_OUT={folder}"], check=True)
    return folder / "rule.o"


def frames(*sources: str) -> list[bytes]:
    """UDP from these addresses, TTL and all else alike."""
    made = []
    for source in sources:
        frame = bytearray(ipv4(UDP, udp(b"x" * 32)))
        frame[26:30] = bytes(map(int, source.split(".")))
        made.append(bytes(frame))
    return made


def large(steps: int) -> str:
    """A long sum over the packet: another than the first packet's is a drop. Every packet is alike."""
    body = "\n".join(f"    sum = sum * {2 * step + 3} + data[{step % 60}]; if (sum & {1 << step % 30}) sum ^= sum >> {step % 13 + 1};" for step in range(steps))
    return f"""
#include "parse.h"
struct {{ __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 2); }} sums SEC(".maps");
SEC("xdp") int large(struct xdp_md *ctx)
{{
    __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u32 zero = 0, one = 1;
    __u64 sum = 1, *first = bpf_map_lookup_elem(&sums, &zero), *count = bpf_map_lookup_elem(&sums, &one);
    if (data + 60 > end || !first || !count) return XDP_ABORTED;
{body}
    *count += 1;
    if (*first == 0) *first = sum;
    return *first == sum ? XDP_PASS : XDP_DROP;
}}
char _license[] SEC("license") = "GPL";
"""


def forwarder(tmp_path, programs, program, sent, **xdp):
    pcap.write(tmp_path / "in.pcap", sent)
    sections = {"port a": {"driver": "pcap", "rx": tmp_path / "in.pcap"}, "port b": {"driver": "pcap", "tx": tmp_path / "out.pcap"},
                "wire w": {"ports": "a b"}, "xdp firewall": {"object": programs, "program": program, "ports": "a"} | xdp}
    return Daemon(sections, binary())


def apusctl(daemon, *words, status=0):
    done = subprocess.run([APUSCTL, *words, "-s", daemon.socket], capture_output=True, text=True, timeout=20)
    assert done.returncode == status, done
    return done.stdout if status == 0 else done.stderr


def received(daemon, count, seconds=10):
    deadline = time.monotonic() + seconds
    while daemon.stats()["ports"]["a"]["rx_packets"] < count:
        assert time.monotonic() < deadline, daemon.stats()
        time.sleep(0.02)
    return daemon.settled_stats()


@pytest.mark.parametrize("verify", ["kernel", "sandbox"])
def test_maps_by_their_types(tmp_path, programs, verify):
    (tmp_path / "rules.json").write_text(json.dumps([
        {"key": 0x0A000001, "value": {"port": 80, "kind": 1, "log": 1, "weight": -7}},
        {"key": "0x0a000002", "value": "0x0050020000000000"}]))
    (tmp_path / "targets.json").write_text(json.dumps([{"key": 1, "value": "b"}]))
    sent = frames("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1")
    with forwarder(tmp_path, programs, "rule", sent, verify=verify,
                   **{"map.rules": tmp_path / "rules.json", "map.targets": tmp_path / "targets.json"}) as daemon:
        stats = received(daemon, 4)
        assert stats["xdp"]["firewall"] | {"cycles": 0} == stats["xdp"]["firewall"] | {"packets": 4, "drop": 2, "pass": 2, "aborted": 0, "cycles": 0}
        # By field, in the order of the key's bytes, numbers of the network as numbers.
        assert apusctl(daemon, "map", "dump", "firewall", "rules") == (
            '167772161 = {"kind":1,"log":1,"port":80,"weight":-7}\n167772162 = {"kind":2,"log":0,"port":80,"weight":0}\n')
        dump = daemon.ask("map dump firewall rules")
        assert dump["entries"][1] == {"key": 167772162, "value": {"port": 80, "kind": 2, "log": 0, "weight": 0}} and not dump["truncated"]
        # Of each CPU: the lcore's own has counted.
        [zero, one] = daemon.ask("map dump firewall seen")["entries"]
        assert zero["key"] == 0 and sorted(zero["value"])[-1] == 4 and sum(zero["value"]) == 4 and sum(one["value"]) == 0
        assert daemon.ask("map lookup firewall targets {\"key\":1}")["value"] == daemon.stats()["ports"]["b"]["index"]
        assert json.loads(apusctl(daemon, "map", "lookup", "firewall", "rules", "0x0a000001"))["weight"] == -7
        # What the program says.
        assert apusctl(daemon, "trace").split("\n")[:2] == ["weight -7", "weight -7"]
        mark = "0x" + struct.pack("=Q", 0x1122334455667788).hex()
        assert apusctl(daemon, "map", "records", "firewall", "records") == f"{mark}\n{mark}\n"
        assert apusctl(daemon, "map", "records", "firewall", "events") == f"{mark}\n{mark}\n"
        assert apusctl(daemon, "map", "records", "firewall", "records") == "" and apusctl(daemon, "trace") == ""
        listed = {entry["map"]: entry for entry in json.loads(apusctl(daemon, "map", "list"))["maps"]}
        assert listed["rules"] | {"memory_bytes": 0} == {"program": "firewall", "map": "rules", "type": "hash", "key_bytes": 4,
                                                         "value_bytes": 8, "max_entries": 64, "entries": 2, "memory_bytes": 0}


def test_maps_are_changed(tmp_path, programs):
    with forwarder(tmp_path, programs, "rule", frames("10.0.0.1")) as daemon:
        value = '{"port":443,"kind":2,"log":0,"weight":5}'
        apusctl(daemon, "map", "update", "firewall", "rules", "1", value)
        assert json.loads(apusctl(daemon, "map", "lookup", "firewall", "rules", "1")) == json.loads(value)
        assert "one already" in apusctl(daemon, "map", "update", "firewall", "rules", "1", value, "--mode", "new", status=1)
        apusctl(daemon, "map", "update", "firewall", "targets", "2", "a")
        assert daemon.ask('map lookup firewall targets {"key":2}')["value"] == daemon.stats()["ports"]["a"]["index"]
        # One value for every CPU, and one each.
        apusctl(daemon, "map", "update", "firewall", "seen", "1", "9")
        values = daemon.ask('map lookup firewall seen {"key":1}')["value"]
        assert set(values) == {9}
        apusctl(daemon, "map", "update", "firewall", "seen", "1", json.dumps(list(range(len(values)))))
        assert daemon.ask('map lookup firewall seen {"key":1}')["value"] == list(range(len(values)))
        # Many at once: more than fit into a line.
        many = [{"key": number, "value": {"port": number, "kind": 2, "log": 0, "weight": -number}} for number in range(2, 64)]
        (tmp_path / "many.json").write_text(json.dumps(many))
        apusctl(daemon, "map", "update", "firewall", "rules", "--file", tmp_path / "many.json")
        assert len(daemon.ask("map dump firewall rules")["entries"]) == 63
        apusctl(daemon, "map", "delete", "firewall", "rules", "1")
        assert "no such entry" in apusctl(daemon, "map", "lookup", "firewall", "rules", "1", status=1)
        for words, message in [
                (("lookup", "other", "rules", "1"), "no program 'other'; there are firewall"),
                (("lookup", "firewall", "other", "1"), "no map 'other', but"),
                (("lookup", "firewall", "rules", "5000000000"), "does not fit into 32 unsigned bits"),
                (("update", "firewall", "rules", "1", '{"port":1}'), "kind, log, weight are missing"),
                (("update", "firewall", "rules", "1", '{"prt":1}'), "no field 'prt', but port, kind, log, weight"),
                (("update", "firewall", "targets", "1", "nowhere"), "'nowhere' is no number"),
                (("records", "firewall", "rules"), "only ring buffers and perf event arrays")]:
            assert message in apusctl(daemon, "map", *words, status=1)


def test_contents_that_do_not_fit(tmp_path, programs):
    for name, text, message in [
            ("rules", '[{"key":1,"value":{"port":70000,"kind":1,"log":0,"weight":0}}]', "entry 1, map rules: the value: port: 70000 does not fit into 16 unsigned bits"),
            ("rules", '[{"value":1}]', "'key' is missing"), ("rules", "01 = 02", "line 1"), ("nothing", "[]", "rule has no map 'nothing', but")]:
        (tmp_path / "file").write_text(text)
        with pytest.raises(DaemonFailed) as refused:
            with forwarder(tmp_path, programs, "rule", frames("10.0.0.1"), **{f"map.{name}": tmp_path / "file"}):
                pass
        assert message in str(refused.value)


def test_a_program_that_goes_wrong_is_stopped(tmp_path, programs):
    """`verify = sandbox`: what touches what it may not is aborted and counted, and the next packet runs as ever."""
    with pytest.raises(DaemonFailed) as refused:
        with forwarder(tmp_path, programs, "wild", frames("10.0.0.0"), verify="kernel"):
            pass
    assert "the kernel's verifier refuses it" in str(refused.value)
    sent = frames("10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.0.0")
    with forwarder(tmp_path, programs, "wild", sent, verify="sandbox") as daemon:
        counted = received(daemon, 4)["xdp"]["firewall"]
        assert (counted["packets"], counted["pass"], counted["aborted"]) == (4, 2, 2)
        assert "watched while it runs" in daemon.log()
    written = pcap.read(tmp_path / "out.pcap")
    assert written == [b"\1" + sent[0][1:], b"\1" + sent[3][1:]]


def test_a_large_program_is_compiled_twice(programs):
    """Interpreted, then in code that is there soon, then in the thorough one, while packets run: each run leaves the same."""
    sections = {"port a": {"driver": "vdev", "devargs": "net_null_a,size=64"}, "port b": {"driver": "null"}, "wire w": {"ports": "a b"},
                "xdp long": {"object": programs.with_name("large.o"), "program": "large", "ports": "a"}}
    with Daemon(sections, binary()) as daemon:
        def packets():
            return daemon.stats()["xdp"]["long"]["packets"]
        counts = [packets()]
        for line in ("xdp long: compiled shortly in ", "xdp long: compiled thoroughly in "):
            deadline = time.monotonic() + 60
            while line not in daemon.log():
                assert time.monotonic() < deadline, daemon.log()
                time.sleep(0.02)
            counts.append(packets())
        time.sleep(0.2)
        counts.append(packets())
        assert counts == sorted(set(counts)), "no packets ran"
        entries = {entry["key"]: entry["value"] for entry in daemon.ask("map dump long sums")["entries"]}
        program = daemon.stats()["xdp"]["long"]
        assert entries[1] >= counts[-1] and entries[0] != 0
        assert program["pass"] >= counts[-2] and program["drop"] == program["aborted"] == 0
