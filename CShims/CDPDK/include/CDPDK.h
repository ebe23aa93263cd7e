#pragma once
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#define APUS_HOT static inline __attribute__((always_inline, swift_attr("@_noLocks")))
struct rte_mbuf;
APUS_HOT uint16_t apus_mbuf_data_length(const struct rte_mbuf *m) { return m->data_len; }
APUS_HOT uint16_t apus_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **p, uint16_t n) { return rte_eth_rx_burst(port, queue, p, n); }
