#include "CChecksum.h"

#include <string.h>

// 32-bit words into 64-bit lanes: the compiler vectorises it, and no carry is ever lost, since fewer
// than 2^32 words of at most 2^32 - 1 are added.
uint64_t apus_sum_bytes(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    uint64_t sum = 0;
    for (; length >= 64; length -= 64, at += 64) {
        uint32_t words[16];
        memcpy(words, at, sizeof words);
        uint64_t part = 0;
        for (int i = 0; i < 16; i++) part += words[i];
        sum += part;
    }
    for (; length >= 4; length -= 4, at += 4) {
        uint32_t word;
        memcpy(&word, at, sizeof word);
        sum += word;
    }
    if (length >= 2) {
        uint16_t half;
        memcpy(&half, at, sizeof half);
        sum += half;
        at += 2;
        length -= 2;
    }
    if (length) {
        uint16_t last = 0;
        memcpy(&last, at, 1);
        sum += last;
    }
    return sum;
}
