"""The call graph from the lcore's entry, in the build people get: no retain, no release, no allocation, no locks."""

import pytest

from lab.callgraph import CallGraph
from lab.daemon import binary

# The polling loop and the daemon's start-up, by their mangled names.
LCORE = r"^\$s9Dataplane5LcoreV3run5until"
START_UP = r"^\$s6Daemon9ForwarderC_13availableCPUs6logger.*cfc$"

# What a polling core may ask other libraries for, and why.
ALLOWED = {
    # A tap port's read and write, one system call a frame.
    "readv", "writev",
    # bpf_ktime_get_ns and bpf_get_smp_processor_id, through the vDSO.
    "clock_gettime", "sched_getcpu",
    "memcpy", "memmove", "memset", "memcmp", "bcmp", "__errno_location", "__stack_chk_fail",
    # mbuf checks that cannot fail, and ethdev's hooks for callbacks nobody registers.
    "__rte_panic", "rte_eth_call_rx_callbacks", "rte_eth_call_tx_callbacks",
    # A flooded packet's copies, from the pool.
    "rte_pktmbuf_clone",
    # idle = sleep, and what a virtio-user peer negotiated, asked in housekeeping.
    "nanosleep", "rte_eth_dev_info_get",
    # bpf_snprintf and bpf_trace_printk; their buffer is made once.
    "snprintf", "inet_ntop", "memchr", "strlen", "strnlen", "pthread_once",
    # What the vhost peer negotiated, asked once a burst.
    "rte_eth_vhost_get_vid_from_port_id", "rte_vhost_get_negotiated_features",
}


@pytest.fixture(scope="module")
def graph() -> CallGraph:
    return CallGraph(binary())


def test_the_lcore_is_closed_under_the_allow_list(graph):
    reach = graph.reach(graph.find(LCORE))
    print(f"{len(reach.functions)} functions, imports: {', '.join(sorted(reach.imports))}")
    print(f"through pointers: {', '.join(sorted(reach.indirect))}")
    assert len(reach.functions) > 30, "the graph was not followed"
    assert reach.imports <= ALLOWED, sorted(reach.imports - ALLOWED)
    # Drivers' bursts; pools' rings where a buffer is taken or given back; the summing kernel chosen at start; the
    # engine's walks over maps, whose closures do not escape, and its hooks for the host.
    pointers = ("rte_", "$s4DPDK", "$s4EBPF", "$s9Dataplane", "apus_")
    strangers = [name for name in reach.indirect if not name.startswith(pointers)]
    assert not strangers, strangers


def test_the_check_can_fail(graph):
    """Start-up allocates and retains: the same check says so."""
    imports = graph.reach(graph.find(START_UP)).imports
    assert {"swift_retain", "swift_release", "swift_allocObject"} <= imports
