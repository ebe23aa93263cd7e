"""The call graph from the lcore's entry, in the build people get: no retain, no release, no allocation, no locks."""

import re

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
    # Which taps have something, one system call for all of them.
    "epoll_wait",
    # idle = sleep, and what a virtio-user peer negotiated, asked in housekeeping.
    "nanosleep", "rte_eth_dev_info_get",
    # bpf_snprintf and bpf_trace_printk; their buffer is made once.
    "snprintf", "inet_ntop", "memchr", "strlen", "strnlen", "pthread_once",
    # A guest's packets, where it offers more of them, and their buffers given back together.
    "rte_vhost_dequeue_burst", "rte_vhost_enqueue_burst", "rte_vhost_get_vring_base", "rte_pktmbuf_free_bulk",
}

# Who may call through a pointer, by mangled name, and whose pointer it is. Nobody else: not the loop, not the stages.
POINTERS = [
    r"\$s4DPDK(5Burst|9PortQueue|8EthQueue|10VhostQueue)V",   # drivers' bursts
    r"\$s4DPDK(6Packet|12PacketMemory|15PacketAllocator|8EthQueue|10VhostQueue|8TapQueue)V",   # pools' rings, where a buffer is taken or given back
    r"rte_(pktmbuf|mempool)_",
    r"apus_full_checksum$", r"\$s9Dataplane(9Reconcile|10Completion)",   # the summing kernel, chosen before main
    r"\$s4EBPF(11Interpreter|7Machine|10XDPContext)V",   # walks over maps, whose closures do not escape; the host's hook for a look
    r"\$s4EBPF6RunnerV",   # compiled programs
    r"apus_format$",   # bpf_snprintf: one writer a conversion
]


@pytest.fixture(scope="module")
def graph() -> CallGraph:
    return CallGraph(binary())


def test_the_lcore_is_closed_under_the_allow_list(graph):
    reach = graph.reach(graph.find(LCORE))
    print(f"{len(reach.functions)} functions, imports: {', '.join(sorted(reach.imports))}")
    print(f"through pointers: {', '.join(sorted(reach.indirect))}")
    assert len(reach.functions) > 30, "the graph was not followed"
    assert reach.imports <= ALLOWED, sorted(reach.imports - ALLOWED)
    strangers = {name for name in reach.indirect if not any(re.match(pattern, name) for pattern in POINTERS)}
    assert not strangers, strangers
    assert all(any(re.match(pattern, name) for name in reach.indirect) for pattern in POINTERS), "a line of the list is dead"


def test_the_check_can_fail(graph):
    """Start-up allocates and retains: the same check says so."""
    imports = graph.reach(graph.find(START_UP)).imports
    assert {"swift_retain", "swift_release", "swift_allocObject"} <= imports
