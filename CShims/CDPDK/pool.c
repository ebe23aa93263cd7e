#include "CDPDK.h"

#include <rte_mbuf_pool_ops.h>

struct rte_mempool *apus_pool_create(const char *name, unsigned count, unsigned cache, uint16_t room, unsigned behind, int node) {
    struct rte_pktmbuf_pool_private private = {.mbuf_data_room_size = room};
    struct rte_mempool *pool = rte_mempool_create_empty(name, count, (unsigned)sizeof(struct rte_mbuf) + room + behind, cache, sizeof(private), node, 0);
    if (!pool) return NULL;
    int error = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
    if (!error) {
        rte_pktmbuf_pool_init(pool, &private);
        error = rte_mempool_populate_default(pool);
    }
    if (error < 0) {
        rte_mempool_free(pool);
        rte_errno = -error;
        return NULL;
    }
    rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
    return pool;
}
