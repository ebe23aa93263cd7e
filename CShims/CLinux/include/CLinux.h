// Linux calls that Swift cannot make: variadic ioctls, macros, netlink messages. No policy.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#pragma clang assume_nonnull begin

#define APUS_NOLOCKS __attribute__((swift_attr("@_noLocks")))

// struct virtio_net_hdr_mrg_rxbuf (virtio 1.2, 5.1.6), little endian, as a tap with IFF_VNET_HDR speaks it.
struct apus_vnet_header {
    uint8_t flags, gso_type;
    uint16_t header_length, gso_size, csum_start, csum_offset, buffers;
};
enum {
    APUS_VNET_NEEDS_CSUM = 1,
    APUS_VNET_DATA_VALID = 2,
    APUS_GSO_NONE = 0,
    APUS_GSO_TCPV4 = 1,
    APUS_GSO_UDP = 3,
    APUS_GSO_TCPV6 = 4,
    APUS_GSO_UDP_L4 = 5,
    APUS_GSO_ECN = 0x80,
};

// MARK: tap

// Opens a tap device with a virtio header of 12 bytes, not blocking. `name` (at most 15 characters) may
// be empty: the kernel then chooses, and the chosen name is written to `chosen` (16 bytes).
// With `multi_queue`, opening the same name again adds a queue. The file descriptor, or a negative errno.
int apus_tap_open(const char *name, char *chosen, bool multi_queue);
// Tells the kernel that it may hand over unfinished checksums, and superframes too: of TCP, and of UDP where it knows
// those (Linux 6.2). 0 or a negative errno.
int apus_tap_offload(int fd, bool checksums, bool superframes);
// Whether the device outlives its last descriptor. 0 or a negative errno.
int apus_tap_persist(int fd, bool persistent);
// One frame with its header. Bytes including the header, or a negative errno (-EAGAIN: nothing there).
APUS_NOLOCKS ssize_t apus_readv(int fd, const struct iovec *iov, int count);
APUS_NOLOCKS ssize_t apus_writev(int fd, const struct iovec *iov, int count);

// MARK: NUMA

// The node whose memory a CPU reaches soonest: its own, where that has memory. -1 where the host has one node or tells of none.
int apus_numa_node_of_cpu(int cpu);

// MARK: readiness

// An epoll instance, or a negative errno.
int apus_watch_open(void);
// `bits` is what apus_watch_look answers while something can be read from `fd`. 0 or a negative errno.
int apus_watch_add(int watch, int fd, uint64_t bits);
// The bits of all that can be read from now, in one system call however many are watched; 0 where there are none.
APUS_NOLOCKS uint64_t apus_watch_look(int watch);

// MARK: links (rtnetlink)

// Each gives 0 or a negative errno.
int apus_link_index(const char *name, uint32_t *index);
int apus_link_set_up(uint32_t index);
int apus_link_set_mtu(uint32_t index, uint32_t mtu);
int apus_link_set_gso_max_size(uint32_t index, uint32_t bytes);
int apus_link_set_netns(uint32_t index, int netns_fd);

// MARK: namespaces, threads

// For a polling thread with nothing to do. The kernel adds no slack of its own where apus_sleep_precisely was called.
APUS_NOLOCKS void apus_sleep_microseconds(unsigned microseconds);
void apus_sleep_precisely(void);

// Enters the network namespace behind `fd` with the calling thread only. 0 or a negative errno.
int apus_enter_netns(int fd);
// Opens the calling thread's network namespace. The file descriptor, or a negative errno.
int apus_current_netns(void);

#pragma clang assume_nonnull end
