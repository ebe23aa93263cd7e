#include "CDPDK.h"

#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_memory.h>
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
