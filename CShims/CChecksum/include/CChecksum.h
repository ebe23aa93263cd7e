// The one loop that sums packet bytes, and SCTP's CRC.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#pragma clang assume_nonnull begin

// Ways to sum. Which ones a machine has is found once, before main.
enum apus_sum_kernel {
    APUS_SUM_PORTABLE,
    APUS_SUM_AVX2,
    APUS_SUM_AVX512,
    APUS_SUM_NEON,
    APUS_SUM_KERNELS,
};
bool apus_sum_has(enum apus_sum_kernel kernel);
enum apus_sum_kernel apus_sum_chosen(void);
const char *apus_sum_name(enum apus_sum_kernel kernel);
// For tests and measurements: sums with one of the kernels the machine has.
uint64_t apus_sum_with(enum apus_sum_kernel kernel, const void *bytes, size_t length);

// Set by a constructor, before any other code of the process; never changed afterwards.
extern uint64_t (*apus_sum_long)(const void *bytes, size_t length);

__attribute__((swift_attr("@_noLocks")))
uint64_t apus_sum_medium(const void *bytes, size_t length);

// Below these bounds a call, and a wide vector's set-up, cost more than they save ('apus-bench sums').
enum { APUS_SUM_SHORT = 64, APUS_SUM_MEDIUM = 192 };

// RFC 1071 sum of `length` bytes as they lie in memory (native words, an odd last byte padded with
// zero), not folded, not complemented. At most 2^32 words fit: `length` stays below 2^33.
__attribute__((always_inline, swift_attr("@_noLocks")))
static inline uint64_t apus_sum_bytes(const void *bytes, size_t length) {
    if (length >= APUS_SUM_MEDIUM) return apus_sum_long(bytes, length);
    if (length >= APUS_SUM_SHORT) return apus_sum_medium(bytes, length);
    const unsigned char *at = bytes;
    uint64_t sum = 0;
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

// CRC-32C (RFC 9260 appendix A) over more bytes: begin with `crc` = ~0, complement at the end. The
// result is the number whose little-endian bytes SCTP sends.
__attribute__((swift_attr("@_noLocks")))
uint32_t apus_crc32c(uint32_t crc, const void *bytes, size_t length);
bool apus_crc32c_has_instruction(void);
// The table's result, for tests.
uint32_t apus_crc32c_table(uint32_t crc, const void *bytes, size_t length);

#ifdef APUS_PLANTED
// Which rule is broken on purpose (Wire/Planted.swift); -1: none. Written by tests alone.
extern int apus_planted_rule;
__attribute__((always_inline, swift_attr("@_noLocks")))
static inline int apus_planted_rule_now(void) { return apus_planted_rule; }
// Swift 6 takes the variable itself for shared mutable state.
static inline void apus_planted_rule_set(int rule) { apus_planted_rule = rule; }
#endif

#pragma clang assume_nonnull end
