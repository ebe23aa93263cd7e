#include "CDPDK.h"

#include <sched.h>
#include <stdlib.h>

#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_eth_vhost.h>
#include <rte_memory.h>
#include <rte_vhost.h>
#include <string.h>

const uint64_t apus_receive_checksum_offloads = RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
const uint64_t apus_receive_lro_offload = RTE_ETH_RX_OFFLOAD_TCP_LRO;
const uint64_t apus_receive_scatter_offload = RTE_ETH_RX_OFFLOAD_SCATTER;
const uint64_t apus_transmit_checksum_offloads = RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
const uint64_t apus_transmit_tso_offload = RTE_ETH_TX_OFFLOAD_TCP_TSO;
const uint64_t apus_transmit_multi_segment_offload = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
const uint64_t apus_transmit_lock_free_offload = RTE_ETH_TX_OFFLOAD_MT_LOCKFREE;

int apus_vdev_create(const char *name, const char *arguments, uint16_t *port) {
    int status = rte_vdev_init(name, arguments);
    if (status != 0) return status;
    return rte_eth_dev_get_port_by_name(name, port);
}

int apus_eth_port_by_name(const char *name, uint16_t *port) { return rte_eth_dev_get_port_by_name(name, port); }

int apus_device_remove(const char *name) {
    // The bus of a PCI device is not ours to leave: its port is closed, and that is all.
    return strncmp(name, "net_", 4) == 0 ? rte_vdev_uninit(name) : 0;
}

static uint16_t at_most(uint16_t wanted, uint16_t available) { return wanted < available ? wanted : available; }

int apus_eth_start(uint16_t port, struct apus_eth_setup *setup) {
    struct rte_eth_dev_info info;
    int status = rte_eth_dev_info_get(port, &info);
    if (status != 0) return status;
    setup->driver = info.driver_name;
    setup->interface_index = info.if_index;
    setup->receive_offloads &= info.rx_offload_capa;
    setup->transmit_offloads &= info.tx_offload_capa;
    if (setup->transmit_queues == 0) setup->transmit_queues = setup->receive_queues;
    setup->receive_queues = at_most(setup->receive_queues, info.max_rx_queues);
    setup->transmit_queues = at_most(setup->transmit_queues, info.max_tx_queues);
    struct rte_eth_conf conf = {
        .rxmode = {.offloads = setup->receive_offloads},
        .txmode = {.offloads = setup->transmit_offloads},
    };
    conf.intr_conf.lsc = setup->hears_link && (*info.dev_flags & RTE_ETH_DEV_INTR_LSC) != 0;
    if (setup->receive_queues > 1 && info.flow_type_rss_offloads != 0) {
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
    }
    status = rte_eth_dev_configure(port, setup->receive_queues, setup->transmit_queues, &conf);
    if (status != 0) return status;
    // A device that has no MTU to set carries what comes.
    if (setup->mtu != 0) rte_eth_dev_set_mtu(port, setup->mtu);
    uint16_t receive_ring = setup->ring_size, transmit_ring = setup->ring_size;
    status = rte_eth_dev_adjust_nb_rx_tx_desc(port, &receive_ring, &transmit_ring);
    if (status != 0) return status;
    for (uint16_t queue = 0; queue < setup->receive_queues; queue++) {
        status = rte_eth_rx_queue_setup(port, queue, receive_ring, setup->socket, NULL, setup->pool);
        if (status != 0) return status;
    }
    for (uint16_t queue = 0; queue < setup->transmit_queues; queue++) {
        status = rte_eth_tx_queue_setup(port, queue, transmit_ring, setup->socket, NULL);
        if (status != 0) return status;
    }
    status = rte_eth_dev_start(port);
    if (status != 0) return status;
    // A virtual device may not know the word; a bridge port wants every frame.
    rte_eth_promiscuous_enable(port);
    return 0;
}

int apus_eth_stop_and_close(uint16_t port) {
    int status = rte_eth_dev_stop(port);
    int closed = rte_eth_dev_close(port);
    return status != 0 ? status : closed;
}

bool apus_eth_link_is_up(uint16_t port) {
    struct rte_eth_link link;
    return rte_eth_link_get_nowait(port, &link) != 0 || link.link_status == RTE_ETH_LINK_UP;
}

void apus_eth_refresh(struct apus_eth_port *p) {
    struct rte_eth_dev_info info;
    if (rte_eth_dev_info_get(p->port, &info) == 0)
        __atomic_store_n(&p->transmit_offloads, info.tx_offload_capa, __ATOMIC_RELAXED);
}

// MARK: memory that a peer maps

struct regions {
    int count, fd;
    uint64_t end, offset;
};

// As the virtio-user driver joins them (DPDK 22.11, vhost_user.c, update_memory_region).
static int count_region(const struct rte_memseg_list *list, const struct rte_memseg *segment, void *argument) {
    struct regions *found = argument;
    if (list->external) return 0;
    int fd = rte_memseg_get_fd_thread_unsafe(segment);
    size_t offset;
    if (fd < 0 || rte_memseg_get_fd_offset_thread_unsafe(segment, &offset) < 0) {
        found->count = -1;
        return 1;
    }
    uint64_t start = (uint64_t)(uintptr_t)segment->addr;
    bool joins = found->count > 0 && fd == found->fd && start == found->end && offset == found->offset;
    if (!joins) found->count++;
    found->fd = fd;
    found->end = start + segment->len;
    found->offset = offset + segment->len;
    return 0;
}

int apus_memory_regions(void) {
    struct regions found = {.fd = -1};
    rte_memseg_walk(count_region, &found);
    return found.count;
}

// MARK: vhost

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

// The library calls this, through its driver, before it forgets a guest that goes, whose queues nobody disables; and
// when one has come.
static int link_changed(uint16_t port, enum rte_eth_event_type type, void *argument, void *unused) {
    (void)type, (void)unused;
    struct apus_eth_port *shared = argument;
    bool up = apus_eth_link_is_up(port);
    if (!up) {
        __atomic_store_n(&shared->guest, -1, __ATOMIC_SEQ_CST);
        wait_for(shared->receiving);
        wait_for(shared->sending);
        __atomic_store_n(&shared->enabled, 0, __ATOMIC_RELAXED);
    }
    int guest = up ? rte_eth_vhost_get_vid_from_port_id(port) : -1;
    uint64_t features = 0;
    if (guest >= 0 && rte_vhost_get_negotiated_features(guest, &features) == 0) {
        __atomic_store_n(&shared->features, features, __ATOMIC_RELAXED);
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
    RING_PACKED = 34, // virtio 1.2, 6
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
