#include "CBench.h"

#include <string.h>

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
