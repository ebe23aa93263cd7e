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
    APUS_SUM_VNNI,
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

// Below this bound a call costs more than it saves ('apus-bench sums').
enum { APUS_SUM_SHORT = 32 };

// 64-bit words in a chain of additions with carry, as a machine without vectors sums best; a carry out of 64 bits counts
// one, since 2^64 is 1 modulo 2^16 - 1. At most 2^33 + 2^17.
__attribute__((always_inline, swift_attr("@_noLocks")))
static inline uint64_t apus_sum_chain(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    unsigned long long sum = 0, carry = 0, word, next[4];
    for (; length >= 32; length -= 32, at += 32) {
        memcpy(next, at, sizeof next);
        sum = __builtin_addcll(sum, next[0], carry, &carry);
        sum = __builtin_addcll(sum, next[1], carry, &carry);
        sum = __builtin_addcll(sum, next[2], carry, &carry);
        sum = __builtin_addcll(sum, next[3], carry, &carry);
    }
    for (; length >= 8; length -= 8, at += 8) {
        memcpy(&word, at, sizeof word);
        sum = __builtin_addcll(sum, word, carry, &carry);
    }
    sum = (sum >> 32) + (sum & 0xffffffff) + carry;
    if (length & 4) {
        uint32_t four;
        memcpy(&four, at, sizeof four);
        sum += four;
        at += 4;
    }
    if (length & 2) {
        uint16_t two;
        memcpy(&two, at, sizeof two);
        sum += two;
        at += 2;
    }
    if (length & 1) {
        uint16_t last = 0;
        memcpy(&last, at, 1);
        sum += last;
    }
    return sum;
}

// RFC 1071 sum of `length` bytes as they lie in memory (native words, an odd last byte padded with
// zero), not folded, not complemented. At most 2^32 words fit: `length` stays below 2^33.
__attribute__((always_inline, swift_attr("@_noLocks")))
static inline uint64_t apus_sum_bytes(const void *bytes, size_t length) {
    return length >= APUS_SUM_SHORT ? apus_sum_long(bytes, length) : apus_sum_chain(bytes, length);
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
