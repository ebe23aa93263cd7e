#include "CDPDK.h"

#include <sched.h>
#include <stdlib.h>

#include <rte_eth_vhost.h>
#include <rte_vhost.h>

static uint16_t at_most(uint16_t wanted, uint16_t available) { return wanted < available ? wanted : available; }

enum { RING_PACKED = 34 }; // virtio 1.2, 6

// MARK: a guest's coming and going

// The library says what changed, once, and keeps no list that could be read.
static int queue_state_changed(uint16_t port, enum rte_eth_event_type type, void *argument, void *unused) {
    (void)type, (void)unused;
    struct apus_eth_port *shared = argument;
    struct rte_eth_vhost_queue_event event;
    while (rte_eth_vhost_get_queue_event(port, &event) == 0) {
        if (event.rx || event.queue_id >= APUS_ETH_QUEUES_MAX) continue;
        uint64_t bit = (uint64_t)1 << event.queue_id;
        if (event.enable) __atomic_fetch_or(&shared->enabled, bit, __ATOMIC_RELAXED);
        else __atomic_fetch_and(&shared->enabled, ~bit, __ATOMIC_RELAXED);
    }
    return 0;
}

static void wait_for(const struct apus_turn *turns) {
    for (int queue = 0; queue < APUS_ETH_QUEUES_MAX; queue++)
        while (__atomic_load_n(&turns[queue].taken, __ATOMIC_SEQ_CST)) sched_yield();
}

// MARK: a guest's memory

// Whose guest a number of the library's is, for its calls, which know nothing else. A guest that is gone makes none.
static struct apus_eth_port *ports_of[1024]; // as many as it numbers (RTE_MAX_VHOST_DEVICE, lib/vhost/vhost.h, DPDK 22.11)

static void learn(struct apus_eth_port *p, int guest) {
    struct rte_vhost_memory *memory = NULL;
    bool is_packed = __atomic_load_n(&p->features, __ATOMIC_RELAXED) >> RING_PACKED & 1;
    if (is_packed || rte_vhost_get_mem_table(guest, &memory) != 0) return;
    p->region_count = at_most(APUS_VHOST_REGIONS_MAX, (uint16_t)memory->nregions);
    for (uint16_t number = 0; number < p->region_count; number++) {
        const struct rte_vhost_mem_region *region = &memory->regions[number];
        p->regions[number] = (struct apus_region){region->guest_phys_addr, region->size, region->host_user_addr};
    }
    free(memory);
    for (uint16_t queue = 0; queue < APUS_ETH_QUEUES_MAX; queue++) {
        struct rte_vhost_vring ring;
        bool is_there = rte_vhost_get_vhost_vring(guest, (uint16_t)(2 * queue + 1), &ring) == 0 && ring.desc && ring.avail;
        p->offers[queue] = is_there ? (struct apus_offers){ring.desc, ring.avail, ring.size} : (struct apus_offers){0};
    }
    __atomic_store_n(&p->readable, true, __ATOMIC_RELEASE);
}

// Any message of its front end may move a guest's memory or its rings. The library holds its queues' locks meanwhile; whoever
// receives does not wait for them.
static enum rte_vhost_msg_result message_came(int guest, void *message) {
    (void)message;
    struct apus_eth_port *p = ports_of[guest];
    __atomic_store_n(&p->readable, false, __ATOMIC_SEQ_CST);
    wait_for(p->receiving);
    return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static enum rte_vhost_msg_result message_went(int guest, void *message) {
    (void)message;
    struct apus_eth_port *p = ports_of[guest];
    if (__atomic_load_n(&p->guest, __ATOMIC_RELAXED) == guest) learn(p, guest);
    return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static void follow_memory(struct apus_eth_port *p, int guest) {
    static const struct rte_vhost_user_extern_ops messages = {message_came, message_went};
    if (guest >= (int)(sizeof ports_of / sizeof *ports_of)) return;
    ports_of[guest] = p;
    if (rte_vhost_extern_callback_register(guest, &messages, NULL) == 0) learn(p, guest);
}

// The library calls this, through its driver, before it forgets a guest that goes, whose queues nobody disables; and
// when one has come.
static int link_changed(uint16_t port, enum rte_eth_event_type type, void *argument, void *unused) {
    (void)type, (void)unused;
    struct apus_eth_port *shared = argument;
    bool up = apus_eth_link_is_up(port);
    if (!up) {
        __atomic_store_n(&shared->readable, false, __ATOMIC_RELAXED);
        __atomic_store_n(&shared->guest, -1, __ATOMIC_SEQ_CST);
        wait_for(shared->receiving);
        wait_for(shared->sending);
        __atomic_store_n(&shared->enabled, 0, __ATOMIC_RELAXED);
    }
    int guest = up ? rte_eth_vhost_get_vid_from_port_id(port) : -1;
    uint64_t features = 0;
    if (guest >= 0 && rte_vhost_get_negotiated_features(guest, &features) == 0) {
        __atomic_store_n(&shared->features, features, __ATOMIC_RELAXED);
        follow_memory(shared, guest);
        __atomic_store_n(&shared->guest, guest, __ATOMIC_RELEASE);
    }
    return 0;
}

int apus_vhost_follow(uint16_t port, struct apus_eth_port *shared, struct rte_mempool *pool) {
    shared->guest = -1;
    shared->pool = pool;
    int status = rte_eth_dev_callback_register(port, RTE_ETH_EVENT_QUEUE_STATE, queue_state_changed, shared);
    return status != 0 ? status : rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_LSC, link_changed, shared);
}

void apus_vhost_unfollow(uint16_t port, struct apus_eth_port *shared) {
    rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_QUEUE_STATE, queue_state_changed, shared);
    rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_LSC, link_changed, shared);
    __atomic_store_n(&shared->guest, -1, __ATOMIC_SEQ_CST);
}

// The guest, which stays until the turn is over; or -1, and it is over. Whoever takes the guest away sees the turn, or is seen.
static int take_turn(struct apus_eth_port *p, struct apus_turn *turn) {
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

uint16_t apus_vhost_receive(struct apus_eth_port *p, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    int guest = take_turn(p, &p->receiving[queue]);
    if (guest < 0) return 0;
    uint16_t received = 0;
    while (received < count) {
        uint16_t wanted = at_most(BURST, (uint16_t)(count - received));
        // Virtqueues are numbered as the guest sees them (virtio 1.2, 5.1.2).
        uint16_t got = rte_vhost_dequeue_burst(guest, (uint16_t)(2 * queue + 1), p->pool, packets + received, wanted);
        received += got;
        if (got < wanted) break;
    }
    end_turn(&p->receiving[queue]);
    return received;
}

static const struct apus_region *region_of(const struct apus_eth_port *p, uint64_t address) {
    for (uint16_t number = 0; number < p->region_count; number++)
        if (address - p->regions[number].guest < p->regions[number].size) return &p->regions[number];
    return NULL;
}

// A guest may write anything into its rings, at any time: nothing is asked of memory but rings' own places.
static void fetch(const struct apus_eth_port *p, const struct apus_offers *offers, uint16_t first, uint16_t count) {
    const struct vring_desc *descriptors = offers->descriptors;
    const struct vring_avail *available = offers->available;
    uint16_t mask = (uint16_t)(offers->size - 1);
    uint16_t offered = (uint16_t)(__atomic_load_n(&available->idx, __ATOMIC_ACQUIRE) - first);
    const struct apus_region *region = p->regions;
    for (uint16_t number = 0; number < at_most(count, offered); number++) {
        const struct vring_desc *descriptor = &descriptors[available->ring[(first + number) & mask] & mask];
        uint64_t address = descriptor->addr;
        uint32_t length = descriptor->len < FRAME ? descriptor->len : FRAME;
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

void apus_vhost_look_ahead(struct apus_eth_port *p, uint16_t queue, uint16_t count) {
    int guest = take_turn(p, &p->receiving[queue]);
    if (guest < 0) return;
    const struct apus_offers *offers = &p->offers[queue];
    uint16_t next, unused;
    if (__atomic_load_n(&p->readable, __ATOMIC_SEQ_CST) && offers->size != 0
        && rte_vhost_get_vring_base(guest, (uint16_t)(2 * queue + 1), &next, &unused) == 0)
        fetch(p, offers, next, count);
    end_turn(&p->receiving[queue]);
}

uint16_t apus_vhost_transmit(struct apus_eth_port *p, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    int guest = take_turn(p, &p->sending[queue]);
    if (guest < 0) return 0;
    bool is_packed = __atomic_load_n(&p->features, __ATOMIC_RELAXED) >> RING_PACKED & 1;
    uint16_t at_once = is_packed ? PACKED_BURST : BURST, sent = 0;
    while (sent < count) {
        uint16_t part = at_most(at_once, (uint16_t)(count - sent));
        uint16_t took = rte_vhost_enqueue_burst(guest, (uint16_t)(2 * queue), packets + sent, part);
        sent += took;
        if (took < part) break;
    }
    end_turn(&p->sending[queue]);
    // They were copied.
    rte_pktmbuf_free_bulk(packets, sent);
    return sent;
}

int apus_vhost_node(const struct apus_eth_port *p) {
    int guest = __atomic_load_n(&p->guest, __ATOMIC_ACQUIRE);
    return guest < 0 ? -1 : rte_vhost_get_numa_node(guest);
}

bool apus_vhost_shares(const struct apus_eth_port *p, uint64_t address) {
    int guest = __atomic_load_n(&p->guest, __ATOMIC_ACQUIRE);
    struct rte_vhost_memory *memory = NULL;
    if (guest < 0 || rte_vhost_get_mem_table(guest, &memory) != 0) return false;
    bool shares = false;
    for (uint32_t number = 0; number < memory->nregions; number++)
        shares |= address - memory->regions[number].host_user_addr < memory->regions[number].size;
    free(memory);
    return shares;
}
