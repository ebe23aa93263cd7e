#include "CDPDK.h"

int apus_mbuf_state_offset = -1;

int apus_mbuf_state_register(void) {
    static const struct rte_mbuf_dynfield field = {
        .name = "apus_checksum_state",
        .size = sizeof(uint64_t),
        .align = __alignof__(uint64_t),
    };
    int offset = rte_mbuf_dynfield_register(&field);
    if (offset < 0) return -rte_errno;
    apus_mbuf_state_offset = offset;
    return 0;
}
