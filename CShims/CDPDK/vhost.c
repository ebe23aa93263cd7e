#define _GNU_SOURCE // dladdr
#include "CDPDK.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <rte_vhost.h>

enum { RING_PACKED = 34 }; // virtio 1.2, 6

static void wait_for(const struct apus_turn *turns) {
    for (int queue = 0; queue < APUS_QUEUES_MAX; queue++)
        while (__atomic_load_n(&turns[queue].taken, __ATOMIC_SEQ_CST)) sched_yield();
}

// MARK: whose guest it is

// The library knows sockets by their paths, and guests by numbers of its own.
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct apus_vhost_port *list;

static struct apus_vhost_port *port_at(const char *path) {
    pthread_mutex_lock(&list_lock);
    struct apus_vhost_port *p = list;
    while (p && strcmp(p->path, path) != 0) p = p->next;
    pthread_mutex_unlock(&list_lock);
    return p;
}

// A port that closes waits for the library, which calls for none of its guests then: what is found stays.
static struct apus_vhost_port *port_of(int guest) {
    char path[sizeof((struct apus_vhost_port){0}).path];
    return rte_vhost_get_ifname(guest, path, sizeof path) == 0 ? port_at(path) : NULL;
}

static void add(struct apus_vhost_port *p) {
    pthread_mutex_lock(&list_lock);
    p->next = list;
    list = p;
    pthread_mutex_unlock(&list_lock);
}

static void forget(struct apus_vhost_port *p) {
    pthread_mutex_lock(&list_lock);
    struct apus_vhost_port **at = &list;
    while (*at && *at != p) at = &(*at)->next;
    if (*at) *at = p->next;
    pthread_mutex_unlock(&list_lock);
}

// MARK: a guest's memory

static bool is_shared(const struct apus_vhost_port *p, const void *start, size_t bytes) {
    for (uint16_t number = 0; number < p->region_count; number++) {
        uint64_t offset = (uint64_t)(uintptr_t)start - p->regions[number].host;
        if (offset < p->regions[number].size && p->regions[number].size - offset >= bytes) return true;
    }
    return false;
}

// A front end may give a ring another size than the one it has room for.
static struct apus_offers offers_of(const struct apus_vhost_port *p, int guest, uint16_t queue) {
    struct rte_vhost_vring ring;
    if (rte_vhost_get_vhost_vring(guest, (uint16_t)(2 * queue + 1), &ring) != 0) return (struct apus_offers){0};
    bool is_there = is_shared(p, ring.desc, ring.size * sizeof(struct vring_desc))
        && is_shared(p, ring.avail, sizeof(struct vring_avail) + ring.size * sizeof(uint16_t));
    return is_there ? (struct apus_offers){ring.desc, ring.avail, ring.size} : (struct apus_offers){0};
}

static void learn(struct apus_vhost_port *p, int guest) {
    struct rte_vhost_memory *memory = NULL;
    bool is_packed = __atomic_load_n(&p->features, __ATOMIC_RELAXED) >> RING_PACKED & 1;
    if (is_packed || rte_vhost_get_mem_table(guest, &memory) != 0) return;
    p->region_count = (uint16_t)RTE_MIN((uint32_t)APUS_VHOST_REGIONS_MAX, memory->nregions);
    for (uint16_t number = 0; number < p->region_count; number++) {
        const struct rte_vhost_mem_region *region = &memory->regions[number];
        p->regions[number] = (struct apus_region){region->guest_phys_addr, region->size, region->host_user_addr};
    }
    free(memory);
    for (uint16_t queue = 0; queue < APUS_QUEUES_MAX; queue++) p->offers[queue] = offers_of(p, guest, queue);
    __atomic_store_n(&p->readable, true, __ATOMIC_RELEASE);
}

// Any message of its front end may move a guest's memory or its rings. The library holds its queues' locks meanwhile; whoever
// receives does not wait for them.
static enum rte_vhost_msg_result message_came(int guest, void *message) {
    (void)message;
    struct apus_vhost_port *p = port_of(guest);
    if (p && __atomic_load_n(&p->guest, __ATOMIC_RELAXED) == guest) {
        __atomic_store_n(&p->readable, false, __ATOMIC_SEQ_CST);
        wait_for(p->receiving);
    }
    return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static enum rte_vhost_msg_result message_went(int guest, void *message) {
    (void)message;
    struct apus_vhost_port *p = port_of(guest);
    if (p && __atomic_load_n(&p->guest, __ATOMIC_RELAXED) == guest) learn(p, guest);
    return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

// MARK: a guest's coming and going

// When it is over nobody uses the guest's number any more, or will.
static void take_away(struct apus_vhost_port *p) {
    __atomic_store_n(&p->readable, false, __ATOMIC_RELAXED);
    __atomic_store_n(&p->guest, -1, __ATOMIC_SEQ_CST);
    wait_for(p->receiving);
    wait_for(p->sending);
}

// The latest of several front ends on one socket is the guest: as a rule the end of the one before has not been heard of yet.
static int guest_came(int guest) {
    static const struct rte_vhost_user_extern_ops messages = {message_came, message_went};
    struct apus_vhost_port *p = port_of(guest);
    uint64_t features = 0;
    if (!p || rte_vhost_get_negotiated_features(guest, &features) != 0) return -1;
    // It is polled for: its notifications would be in vain.
    for (uint16_t ring = 0; ring < rte_vhost_get_vring_num(guest); ring++) rte_vhost_enable_guest_notification(guest, ring, 0);
    take_away(p);
    __atomic_store_n(&p->features, features, __ATOMIC_RELAXED);
    if (rte_vhost_extern_callback_register(guest, &messages, NULL) == 0) learn(p, guest);
    __atomic_store_n(&p->guest, guest, __ATOMIC_RELEASE);
    return 0;
}

// Before the library forgets a guest, whose queues nobody disables.
static void guest_goes(int guest) {
    struct apus_vhost_port *p = port_of(guest);
    if (!p || __atomic_load_n(&p->guest, __ATOMIC_RELAXED) != guest) return;
    take_away(p);
    __atomic_store_n(&p->enabled, 0, __ATOMIC_RELAXED);
}

// Virtqueues are numbered as the guest sees them: it receives by the even ones (virtio 1.2, 5.1.2).
static int ring_changed(int guest, uint16_t ring, int enable) {
    struct apus_vhost_port *p = port_of(guest);
    if (!p || ring % 2 != 0 || ring / 2 >= APUS_QUEUES_MAX) return 0;
    uint64_t bit = (uint64_t)1 << ring / 2;
    if (p->enabling != guest) {
        if (!enable) return 0;
        p->enabling = guest;
        __atomic_store_n(&p->enabled, 0, __ATOMIC_RELAXED);
    }
    if (enable) __atomic_fetch_or(&p->enabled, bit, __ATOMIC_RELAXED);
    else __atomic_fetch_and(&p->enabled, ~bit, __ATOMIC_RELAXED);
    return 0;
}

bool apus_vhost_open(struct apus_vhost_port *p, const char *path, bool connects, struct rte_mempool *pool) {
    static const struct rte_vhost_device_ops events = {.new_device = guest_came, .destroy_device = guest_goes, .vring_state_changed = ring_changed};
    p->guest = p->enabling = -1;
    p->pool = pool;
    if (strlen(path) >= sizeof p->path) return false;
    strcpy(p->path, path);
    // Not the library's own statistics, which look at each packet once more.
    uint64_t flags = RTE_VHOST_USER_NET_COMPLIANT_OL_FLAGS | (connects ? RTE_VHOST_USER_CLIENT : 0);
    if (rte_vhost_driver_register(path, flags) != 0) return false;
    add(p);
    if (rte_vhost_driver_callback_register(path, &events) == 0 && rte_vhost_driver_start(path) == 0) return true;
    apus_vhost_close(p);
    return false;
}

void apus_vhost_close(struct apus_vhost_port *p) {
    rte_vhost_driver_unregister(p->path);
    forget(p);
}

int apus_vhost_node(const struct apus_vhost_port *p) {
    int guest = __atomic_load_n(&p->guest, __ATOMIC_ACQUIRE);
    return guest < 0 ? -1 : rte_vhost_get_numa_node(guest);
}

bool apus_vhost_shares(const struct apus_vhost_port *p, uint64_t address) {
    int guest = __atomic_load_n(&p->guest, __ATOMIC_ACQUIRE);
    struct rte_vhost_memory *memory = NULL;
    if (guest < 0 || rte_vhost_get_mem_table(guest, &memory) != 0) return false;
    bool shares = false;
    for (uint32_t number = 0; number < memory->nregions; number++)
        shares |= address - memory->regions[number].host_user_addr < memory->regions[number].size;
    free(memory);
    return shares;
}

// MARK: bursts

// The guest, which stays until the turn is over; or -1, and it is over. Whoever takes the guest away sees the turn, or is seen.
static int take_turn(struct apus_vhost_port *p, struct apus_turn *turn) {
    __atomic_store_n(&turn->taken, true, __ATOMIC_SEQ_CST);
    int guest = __atomic_load_n(&p->guest, __ATOMIC_SEQ_CST);
    if (guest < 0) __atomic_store_n(&turn->taken, false, __ATOMIC_RELEASE);
    return guest;
}

static void end_turn(struct apus_turn *turn) { __atomic_store_n(&turn->taken, false, __ATOMIC_RELEASE); }

enum {
    // The library carries no more in a call (MAX_PKT_BURST, lib/vhost/virtio_net.c, DPDK 22.11).
    BURST = 32,
    // Four packets and more to a packed ring go by code of the library that does not see when a descriptor is shorter than
    // the virtio header, and writes the whole packet there, past the end of the guest's memory if it lies there (DPDK
    // 22.11, virtio_dev_rx_sync_batch_packed). Can go when the library checks.
    PACKED_BURST = 3,
    FRAME = 1600, // what is fetched of a packet at most: more of one is found by the processor itself
};

uint16_t apus_vhost_receive(struct apus_vhost_port *p, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    int guest = take_turn(p, &p->receiving[queue]);
    if (guest < 0) return 0;
    uint16_t received = 0;
    while (received < count) {
        uint16_t wanted = (uint16_t)RTE_MIN((int)BURST, count - received);
        uint16_t got = rte_vhost_dequeue_burst(guest, (uint16_t)(2 * queue + 1), p->pool, packets + received, wanted);
        received += got;
        if (got < wanted) break;
    }
    end_turn(&p->receiving[queue]);
    return received;
}

uint16_t apus_vhost_transmit(struct apus_vhost_port *p, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    int guest = take_turn(p, &p->sending[queue]);
    if (guest < 0) return 0;
    bool is_packed = __atomic_load_n(&p->features, __ATOMIC_RELAXED) >> RING_PACKED & 1;
    uint16_t at_once = is_packed ? PACKED_BURST : BURST, sent = 0;
    while (sent < count) {
        uint16_t part = (uint16_t)RTE_MIN((int)at_once, count - sent);
        uint16_t took = rte_vhost_enqueue_burst(guest, (uint16_t)(2 * queue), packets + sent, part);
        sent += took;
        if (took < part) break;
    }
    end_turn(&p->sending[queue]);
    // They were copied.
    rte_pktmbuf_free_bulk(packets, sent);
    return sent;
}

static const struct apus_region *region_of(const struct apus_vhost_port *p, uint64_t address) {
    for (uint16_t number = 0; number < p->region_count; number++)
        if (address - p->regions[number].guest < p->regions[number].size) return &p->regions[number];
    return NULL;
}

// A guest may write anything into its rings, at any time: nothing is asked of memory but rings' own places.
static void fetch(const struct apus_vhost_port *p, const struct apus_offers *offers, uint16_t first, uint16_t count) {
    const struct vring_desc *descriptors = offers->descriptors;
    const struct vring_avail *available = offers->available;
    uint16_t mask = (uint16_t)(offers->size - 1);
    uint16_t offered = (uint16_t)(__atomic_load_n(&available->idx, __ATOMIC_ACQUIRE) - first);
    const struct apus_region *region = p->regions;
    count = RTE_MIN(count, offered);
    for (uint16_t number = 0; number < count; number++) {
        const struct vring_desc *descriptor = &descriptors[available->ring[(first + number) & mask] & mask];
        uint64_t address = descriptor->addr;
        uint32_t length = RTE_MIN(descriptor->len, (uint32_t)FRAME);
        if (descriptor->flags & VRING_DESC_F_INDIRECT) continue;
        if (address - region->guest >= region->size) {
            const struct apus_region *other = region_of(p, address);
            if (!other) continue;
            region = other;
        }
        uint64_t start = region->host + (address - region->guest), end = start + length;
        // Into the second cache: a burst of large packets is larger than the first.
        for (uint64_t line = start & ~(uint64_t)(RTE_CACHE_LINE_SIZE - 1); line < end; line += RTE_CACHE_LINE_SIZE)
            __builtin_prefetch((const void *)(uintptr_t)line, 0, 2);
    }
}

void apus_vhost_look_ahead(struct apus_vhost_port *p, uint16_t queue, uint16_t count) {
    int guest = take_turn(p, &p->receiving[queue]);
    if (guest < 0) return;
    const struct apus_offers *offers = &p->offers[queue];
    uint16_t next, unused;
    if (__atomic_load_n(&p->readable, __ATOMIC_SEQ_CST) && offers->size != 0
        && rte_vhost_get_vring_base(guest, (uint16_t)(2 * queue + 1), &next, &unused) == 0)
        fetch(p, offers, next, count);
    end_turn(&p->receiving[queue]);
}

const char *apus_vhost_library(void) {
    Dl_info found;
    return dladdr((const void *)rte_vhost_driver_register, &found) ? found.dli_fname : "";
}
