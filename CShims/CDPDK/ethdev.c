#include "CDPDK.h"

#include <rte_bus_vdev.h>
#include <rte_eth_vhost.h>
#include <rte_vhost.h>

const uint64_t apus_receive_checksum_offloads = RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
const uint64_t apus_receive_lro_offload = RTE_ETH_RX_OFFLOAD_TCP_LRO;
const uint64_t apus_receive_scatter_offload = RTE_ETH_RX_OFFLOAD_SCATTER;
const uint64_t apus_transmit_checksum_offloads = RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
const uint64_t apus_transmit_tso_offload = RTE_ETH_TX_OFFLOAD_TCP_TSO;
const uint64_t apus_transmit_multi_segment_offload = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;

int apus_vdev_create(const char *name, const char *arguments, uint16_t *port) {
    int status = rte_vdev_init(name, arguments);
    if (status != 0) return status;
    return rte_eth_dev_get_port_by_name(name, port);
}

int apus_vdev_destroy(const char *name) { return rte_vdev_uninit(name); }

int apus_eth_start(uint16_t port, struct apus_eth_setup *setup) {
    struct rte_eth_dev_info info;
    int status = rte_eth_dev_info_get(port, &info);
    if (status != 0) return status;
    setup->receive_offloads &= info.rx_offload_capa;
    setup->transmit_offloads &= info.tx_offload_capa;
    struct rte_eth_conf conf = {
        .rxmode = {.offloads = setup->receive_offloads},
        .txmode = {.offloads = setup->transmit_offloads},
    };
    status = rte_eth_dev_configure(port, setup->queues, setup->queues, &conf);
    if (status != 0) return status;
    uint16_t receive_ring = setup->ring_size, transmit_ring = setup->ring_size;
    status = rte_eth_dev_adjust_nb_rx_tx_desc(port, &receive_ring, &transmit_ring);
    if (status != 0) return status;
    for (uint16_t queue = 0; queue < setup->queues; queue++) {
        status = rte_eth_rx_queue_setup(port, queue, receive_ring, setup->socket, NULL, setup->pool);
        if (status != 0) return status;
        status = rte_eth_tx_queue_setup(port, queue, transmit_ring, setup->socket, NULL);
        if (status != 0) return status;
    }
    return rte_eth_dev_start(port);
}

int apus_eth_stop_and_close(uint16_t port) {
    int status = rte_eth_dev_stop(port);
    int closed = rte_eth_dev_close(port);
    return status != 0 ? status : closed;
}

bool apus_vhost_features(uint16_t port, uint64_t *features) {
    int vid = rte_eth_vhost_get_vid_from_port_id(port);
    return vid >= 0 && rte_vhost_get_negotiated_features(vid, features) == 0;
}
