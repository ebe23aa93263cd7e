// What Swift cannot say to DPDK itself: rte_mbuf is over-aligned and does not import, and most of the
// fast path is static inline or macros. No policy here. Hot functions are annotated so that Swift's
// @_noLocks accepts calls to them; nothing in them allocates from the heap or takes a lock.
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_memcpy.h>
#include <rte_mempool.h>
#include <rte_net.h>
#include <rte_prefetch.h>
#include <rte_spinlock.h>
#include <rte_telemetry.h>
#include <rte_version.h>

#pragma clang assume_nonnull begin

#define APUS_HOT static inline __attribute__((always_inline, swift_attr("@_noLocks")))

// MARK: mbuf fields

// Offset of the checksum state in an mbuf: set once by apus_mbuf_state_register, before any lcore starts.
extern int apus_mbuf_state_offset;
// Registers the dynamic field that carries the checksum state. 0, or a negative errno.
int apus_mbuf_state_register(void);

APUS_HOT uint64_t apus_mbuf_state(const struct rte_mbuf *m) {
    return *RTE_MBUF_DYNFIELD(m, apus_mbuf_state_offset, const uint64_t *);
}
APUS_HOT void apus_mbuf_set_state(struct rte_mbuf *m, uint64_t state) {
    *RTE_MBUF_DYNFIELD(m, apus_mbuf_state_offset, uint64_t *) = state;
}

APUS_HOT uint8_t *apus_mbuf_data(const struct rte_mbuf *m) { return rte_pktmbuf_mtod(m, uint8_t *); }
APUS_HOT uint16_t apus_mbuf_data_length(const struct rte_mbuf *m) { return m->data_len; }
APUS_HOT uint32_t apus_mbuf_packet_length(const struct rte_mbuf *m) { return m->pkt_len; }
APUS_HOT uint16_t apus_mbuf_segment_count(const struct rte_mbuf *m) { return m->nb_segs; }
APUS_HOT struct rte_mbuf *_Nullable apus_mbuf_next(const struct rte_mbuf *m) { return m->next; }
APUS_HOT uint8_t *apus_mbuf_buffer(const struct rte_mbuf *m) { return m->buf_addr; }
APUS_HOT uint16_t apus_mbuf_buffer_length(const struct rte_mbuf *m) { return m->buf_len; }
APUS_HOT uint64_t apus_mbuf_flags(const struct rte_mbuf *m) { return m->ol_flags; }
APUS_HOT uint32_t apus_mbuf_packet_type(const struct rte_mbuf *m) { return m->packet_type; }
// Both in one load: the type in the lower half, the packet's length in the upper one.
APUS_HOT uint64_t apus_mbuf_type_and_length(const struct rte_mbuf *m) {
    uint64_t word;
    memcpy(&word, (const char *)m + offsetof(struct rte_mbuf, packet_type), sizeof word);
    return word;
}
_Static_assert(offsetof(struct rte_mbuf, pkt_len) == offsetof(struct rte_mbuf, packet_type) + 4
               && offsetof(struct rte_mbuf, packet_type) % 8 == 0 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "type and length are one aligned word");
APUS_HOT uint16_t apus_mbuf_segment_size(const struct rte_mbuf *m) { return m->tso_segsz; }
APUS_HOT uint16_t apus_mbuf_tailroom(const struct rte_mbuf *m) { return rte_pktmbuf_tailroom(m); }

// True if this mbuf's bytes may be written: one reference, and the buffer is its own.
APUS_HOT bool apus_mbuf_is_exclusive(const struct rte_mbuf *m) {
    return rte_mbuf_refcnt_read(m) == 1 && RTE_MBUF_DIRECT(m);
}

// Moves the first segment's window: its data then begins `offset` bytes into the buffer and is `length`
// long. The caller keeps offset + length within the buffer. Packet length follows.
APUS_HOT void apus_mbuf_set_window(struct rte_mbuf *m, uint16_t offset, uint16_t length) {
    m->pkt_len = m->pkt_len - m->data_len + length;
    m->data_off = offset;
    m->data_len = length;
}

// Puts `tail` (its own chain) behind the last segment of `head`. False where the chain would be too long.
APUS_HOT bool apus_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail) {
    return rte_pktmbuf_chain(head, tail) == 0;
}

// Cuts `count` bytes off the chain's front, freeing the segments that end within them; gives the chain that is
// left, or null where nothing is. Windows belong to an mbuf, bytes to whoever holds a reference: other holders of
// the bytes keep theirs.
APUS_HOT struct rte_mbuf *_Nullable apus_mbuf_cut_front(struct rte_mbuf *m, uint32_t count) {
    uint32_t length = m->pkt_len - count;
    uint16_t segments = m->nb_segs;
    while (count >= m->data_len) {
        struct rte_mbuf *next = m->next;
        count -= m->data_len;
        m->next = NULL;
        m->nb_segs = 1;
        rte_pktmbuf_free_seg(m);
        segments--;
        if (next == NULL) return NULL;
        m = next;
    }
    m->data_off += count;
    m->data_len -= count;
    m->pkt_len = length;
    m->nb_segs = segments;
    return m;
}

// The flags and lengths a transmitting driver reads. l2 has 7 bits, l3 9, l4 8 (rte_mbuf_core.h).
APUS_HOT void apus_mbuf_set_offload(struct rte_mbuf *m, uint64_t flags, uint16_t l2, uint16_t l3, uint16_t l4,
                                    uint16_t segment_size) {
    // A clone stays one: these two say whose the bytes are.
    m->ol_flags = (m->ol_flags & (RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL)) | flags;
    m->tx_offload = rte_mbuf_tx_offload(l2, l3, l4, segment_size, 0, 0, 0);
}

// rte_pktmbuf_pool_create() with bytes left free behind each buffer, which it has no word for. NULL: apus_errno() says why.
struct rte_mempool *_Nullable apus_pool_create(const char *name, unsigned count, unsigned cache, uint16_t room, unsigned behind, int node);
APUS_HOT struct rte_mbuf *_Nullable apus_mbuf_allocate(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }
// Another chain over the same bytes, which nobody may write from then on. Dynamic fields are copied.
APUS_HOT struct rte_mbuf *_Nullable apus_mbuf_clone(struct rte_mbuf *m, struct rte_mempool *pool) {
    return rte_pktmbuf_clone(m, pool);
}
APUS_HOT void apus_mbuf_free(struct rte_mbuf *m) { rte_pktmbuf_free(m); }
APUS_HOT void apus_prefetch(const void *address) { rte_prefetch0(address); }
APUS_HOT void apus_copy(void *to, const void *from, size_t length) { rte_memcpy(to, from, length); }

// MARK: ethdev

APUS_HOT uint16_t apus_eth_receive(uint16_t port, uint16_t queue, struct rte_mbuf *_Nullable *_Nonnull packets,
                                   uint16_t count) {
    return rte_eth_rx_burst(port, queue, packets, count);
}
APUS_HOT uint16_t apus_eth_transmit(uint16_t port, uint16_t queue, struct rte_mbuf *_Nullable *_Nonnull packets,
                                    uint16_t count) {
    return rte_eth_tx_burst(port, queue, packets, count);
}

// Creates a virtual device and gives its port. 0, or a negative errno.
int apus_vdev_create(const char *name, const char *arguments, uint16_t *port);
// Removes a device of any bus with its port, which is stopped and closed already. 0, or a negative errno.
int apus_device_remove(const char *name);
int apus_eth_port_by_name(const char *name, uint16_t *port);

struct apus_eth_setup {
    // In: what is wanted. Out: what the device offers of it.
    uint64_t receive_offloads, transmit_offloads;
    // In: what is wanted; 0 transmit queues are as many as receive queues. Out: what the device has of it.
    uint16_t receive_queues, transmit_queues;
    uint16_t ring_size;
    uint16_t mtu;
    // The driver hears of its peer's coming and going by interrupt, and says so as its link.
    bool hears_link;
    unsigned socket;
    struct rte_mempool *_Nullable pool;
    // Out.
    uint32_t interface_index;
    const char *_Nullable driver;
};
// Configures, sets up every queue, starts. 0, or a negative errno.
int apus_eth_start(uint16_t port, struct apus_eth_setup *setup);
int apus_eth_stop_and_close(uint16_t port);
// False where the device says so; a device that cannot tell is up.
bool apus_eth_link_is_up(uint16_t port);
// Memory that peers share is a file of theirs. Where one cuts it short while it is mapped here, any access ends the process
// (SIGBUS): from here on such pages are replaced by private ones of zeros. 0, or a negative errno.
int apus_survive_lost_memory(void);
// How many pages were, and an address in the last.
uint64_t apus_lost_pages(uint64_t *_Nonnull address);
// Regions of packet memory as a vhost-user peer would have to map them, or -1 where it cannot be shared.
int apus_memory_regions(void);

extern const uint64_t apus_receive_checksum_offloads;
extern const uint64_t apus_receive_lro_offload;
extern const uint64_t apus_receive_scatter_offload;
extern const uint64_t apus_transmit_checksum_offloads;
extern const uint64_t apus_transmit_tso_offload;
extern const uint64_t apus_transmit_multi_segment_offload;
extern const uint64_t apus_transmit_lock_free_offload;

enum { APUS_QUEUES_MAX = 64 };

// What control and lcores share about a port. Control makes and closes the device; lcores go in only while it is open.
struct apus_eth_port {
    uint16_t port;              // control: wo, while closed
    bool open;                  // control: wo
    uint64_t transmit_offloads; // what the device offers now; any lcore: refreshes it
    rte_spinlock_t locks[APUS_QUEUES_MAX];
};

APUS_HOT bool apus_eth_is_open(const struct apus_eth_port *p) { return __atomic_load_n(&p->open, __ATOMIC_ACQUIRE); }
APUS_HOT uint64_t apus_eth_offloads(const struct apus_eth_port *p) {
    return __atomic_load_n(&p->transmit_offloads, __ATOMIC_RELAXED);
}
APUS_HOT uint16_t apus_eth_number(const struct apus_eth_port *p) { return p->port; }
static inline void apus_eth_open(struct apus_eth_port *p, uint16_t port, uint64_t offloads) {
    p->port = port;
    __atomic_store_n(&p->transmit_offloads, offloads, __ATOMIC_RELAXED);
    __atomic_store_n(&p->open, true, __ATOMIC_RELEASE);
}
static inline void apus_eth_shut(struct apus_eth_port *p) { __atomic_store_n(&p->open, false, __ATOMIC_SEQ_CST); }
// True if it was taken at once. The only lock a packet may meet: of a transmit queue that lcores share.
APUS_HOT bool apus_queue_lock(rte_spinlock_t *lock) {
    if (rte_spinlock_trylock(lock)) return true;
    rte_spinlock_lock(lock);
    return false;
}
APUS_HOT void apus_queue_unlock(rte_spinlock_t *lock) { rte_spinlock_unlock(lock); }
APUS_HOT rte_spinlock_t *apus_eth_lock(struct apus_eth_port *p, uint16_t queue) { return &p->locks[queue]; }

// Asks the device again what it offers: a virtio-user port learns that when its peer comes. About 100 ns.
__attribute__((swift_attr("@_noLocks")))
void apus_eth_refresh(struct apus_eth_port *p);

// Lets the driver write into the packets what its hardware wants to find. How many are ready; the next one is not.
APUS_HOT uint16_t apus_eth_prepare(uint16_t port, uint16_t queue, struct rte_mbuf *_Nullable *_Nonnull packets,
                                   uint16_t count) {
    return rte_eth_tx_prepare(port, queue, packets, count);
}

// MARK: vhost

enum { APUS_VHOST_REGIONS_MAX = 8 }; // VHOST_MEMORY_MAX_NREGIONS of the vhost-user protocol

// What control, lcores and the library's thread share about a vhost-user port. Where nothing is said, the library's thread: wo.
struct apus_vhost_port {
    int guest;                           // the library's number of it, or -1
    uint64_t features;                   // what the guest negotiated, for as long as it is there
    uint64_t enabled;                    // transmit queues the guest has enabled
    struct rte_mempool *_Nullable pool;  // buffers for what arrives; control: wo, while closed
    // The guest's memory, and the rings it sends by, for as long as they may be read.
    bool readable;
    uint16_t region_count;
    struct apus_region { uint64_t guest, size, host; } regions[APUS_VHOST_REGIONS_MAX];
    struct apus_offers { const void *_Nullable descriptors, *_Nullable available; uint16_t size; } offers[APUS_QUEUES_MAX];
    int enabling;                        // whose queues `enabled` is about
    struct apus_vhost_port *_Nullable next;
    char path[108];                      // of its socket (sun_path); control: wo, while closed
    rte_spinlock_t locks[APUS_QUEUES_MAX];
    // Somebody is in the library with the guest's number, a line each: the lcore that polls a queue, and the one that sends by it.
    struct apus_turn { bool taken; char line[63]; } receiving[APUS_QUEUES_MAX], sending[APUS_QUEUES_MAX];
};

// Listens on the path, or connects to it, again and again, and follows the guest at its other end. The port stays in its
// place until it is closed. False where the socket cannot be had; the library's log says why.
bool apus_vhost_open(struct apus_vhost_port *p, const char *path, bool connects, struct rte_mempool *pool);
void apus_vhost_close(struct apus_vhost_port *p);
// The NUMA node of the guest's memory, or -1.
int apus_vhost_node(const struct apus_vhost_port *p);
// Whether the address is in memory that the guest shares.
bool apus_vhost_shares(const struct apus_vhost_port *p, uint64_t address);

APUS_HOT bool apus_vhost_has_guest(const struct apus_vhost_port *p) { return __atomic_load_n(&p->guest, __ATOMIC_ACQUIRE) >= 0; }
// What the guest negotiated, virtio bits; 0: nothing, or there is none.
APUS_HOT uint64_t apus_vhost_features(const struct apus_vhost_port *p) {
    return apus_vhost_has_guest(p) ? __atomic_load_n(&p->features, __ATOMIC_RELAXED) : 0;
}
APUS_HOT rte_spinlock_t *apus_vhost_lock(struct apus_vhost_port *p, uint16_t queue) { return &p->locks[queue]; }
APUS_HOT bool apus_vhost_queue_is_enabled(const struct apus_vhost_port *p, uint16_t queue) {
    return __atomic_load_n(&p->enabled, __ATOMIC_RELAXED) >> queue & 1;
}

// Nothing where there is no guest.
__attribute__((swift_attr("@_noLocks")))
uint16_t apus_vhost_receive(struct apus_vhost_port *p, uint16_t queue, struct rte_mbuf *_Nullable *_Nonnull packets, uint16_t count);
// Frees what it took.
__attribute__((swift_attr("@_noLocks")))
uint16_t apus_vhost_transmit(struct apus_vhost_port *p, uint16_t queue, struct rte_mbuf *_Nullable *_Nonnull packets, uint16_t count);
// Asks the memory for what the guest has offered next, up to so many packets, while other work is done: copying is waiting for
// it. Split rings, and packets that lie in one piece; else nothing.
__attribute__((swift_attr("@_noLocks")))
void apus_vhost_look_ahead(struct apus_vhost_port *p, uint16_t queue, uint16_t count);

// The file of the library that copies packets from and to guests; "" where nobody knows.
const char *apus_vhost_library(void);

// What vhost's enqueue does to the bytes of a packet with checksum flags (lib/vhost/virtio_net.c, 22.11; the status
// is ignored there, too): for tests that show what is kept from it.
static inline int apus_vhost_enqueue_seeds(struct rte_mbuf *m) { return rte_net_intel_cksum_prepare(m); }

// Gives an mbuf another buffer, for good: for tests that put a page behind it which nobody may touch.
static inline void apus_mbuf_place(struct rte_mbuf *m, void *buffer, uint16_t length) {
    m->buf_addr = buffer;
    m->buf_len = length;
}

// MARK: clock, lcores

APUS_HOT uint64_t apus_cycles(void) { return rte_rdtsc(); }
APUS_HOT void apus_pause(void) { rte_pause(); }
static inline uint64_t apus_cycles_per_second(void) { return rte_get_tsc_hz(); }
static inline int apus_errno(void) { return rte_errno; }
static inline unsigned apus_lcore_main(void) { return rte_get_main_lcore(); }
static inline unsigned apus_socket_any(void) { return (unsigned)SOCKET_ID_ANY; }

// MARK: counters shared with control: one writer, relaxed, so the bus is never locked

APUS_HOT void apus_counter_add(uint64_t *counter, uint64_t n) {
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
APUS_HOT uint64_t apus_counter_load(const uint64_t *counter) { return __atomic_load_n(counter, __ATOMIC_RELAXED); }
// MARK: words that lcores share

APUS_HOT uint64_t apus_shared_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
APUS_HOT void apus_shared_store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
APUS_HOT bool apus_shared_exchange(uint64_t *word, uint64_t old, uint64_t value) {
    return __atomic_compare_exchange_n(word, &old, value, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
APUS_HOT void apus_shared_add(uint64_t *word, uint64_t n) { __atomic_fetch_add(word, n, __ATOMIC_RELAXED); }

APUS_HOT bool apus_flag_load(const bool *flag) { return __atomic_load_n(flag, __ATOMIC_ACQUIRE); }
APUS_HOT void apus_flag_store(bool *flag, bool value) { __atomic_store_n(flag, value, __ATOMIC_RELEASE); }

#ifdef APUS_PLANTED
// True if the environment asks for the planted bug; read once, before any lcore starts.
extern bool apus_planted_seed, apus_planted_loss;
void apus_planted_read(void);
APUS_HOT bool apus_planted_wrong_seed(void) { return apus_planted_seed; }
APUS_HOT bool apus_planted_lost_buffer(void) { return apus_planted_loss; }
#endif

// MARK: flag words, for the one file of Swift that maps them

#define APUS_FLAG(swift, dpdk) static const uint64_t apus_flag_##swift = dpdk
APUS_FLAG(rx_l4_mask, RTE_MBUF_F_RX_L4_CKSUM_MASK);
APUS_FLAG(rx_l4_unknown, RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN);
APUS_FLAG(rx_l4_bad, RTE_MBUF_F_RX_L4_CKSUM_BAD);
APUS_FLAG(rx_l4_good, RTE_MBUF_F_RX_L4_CKSUM_GOOD);
APUS_FLAG(rx_l4_partial, RTE_MBUF_F_RX_L4_CKSUM_NONE);
APUS_FLAG(rx_lro, RTE_MBUF_F_RX_LRO);
APUS_FLAG(tx_udp_segments, RTE_MBUF_F_TX_UDP_SEG);
APUS_FLAG(tx_tcp, RTE_MBUF_F_TX_TCP_CKSUM);
APUS_FLAG(tx_udp, RTE_MBUF_F_TX_UDP_CKSUM);
APUS_FLAG(tx_tso, RTE_MBUF_F_TX_TCP_SEG);
APUS_FLAG(tx_ipv4, RTE_MBUF_F_TX_IPV4);
APUS_FLAG(tx_ipv6, RTE_MBUF_F_TX_IPV6);
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_NONE == (RTE_MBUF_F_RX_L4_CKSUM_BAD | RTE_MBUF_F_RX_L4_CKSUM_GOOD),
               "Linux's CHECKSUM_PARTIAL is both bits");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN == 0, "no flag means nothing is known");

#pragma clang assume_nonnull end
