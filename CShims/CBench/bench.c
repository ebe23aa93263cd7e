#define _GNU_SOURCE
#include "CBench.h"

#include <string.h>
#include <sys/mman.h>

uint64_t apus_bench_compiler_sum(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    uint64_t sum = 0;
    size_t words = length / 4;
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, at + 4 * i, sizeof word);
        sum += word;
    }
    for (size_t i = words * 4; i < length; i++) sum += (uint64_t)at[i] << (i % 2 * 8);
    return sum;
}

void apus_bench_copy(void *to, const void *from, size_t length) { memcpy(to, from, length); }

void *apus_bench_low_memory(size_t bytes) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
#ifdef MAP_32BIT
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_32BIT, -1, 0);
#else
    void *at = mmap((void *)(1ul << 30), bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
#endif
    return at == MAP_FAILED || (uintptr_t)at + bytes > UINT32_MAX ? NULL : at;
}

uint64_t apus_bench_native(void *program, const uint32_t *packets, size_t count) {
    int (*run)(const void *) = (int (*)(const void *))program;
    uint64_t verdicts = 0;
    for (size_t i = 0; i < count; i++) {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        uint32_t context[6] = {packets[2 * i], packets[2 * i + 1], packets[2 * i], 1, 0, 0};
        verdicts += (uint32_t)run(context);
    }
    return verdicts;
}
