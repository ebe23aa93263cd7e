#include "CChecksum.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

// Castagnoli's polynomial, bits reflected (RFC 9260 appendix A).
#define POLYNOMIAL 0x82f63b78u

static uint32_t table[256];
static bool has_instruction;

// Before main, so that readers never see half a table.
__attribute__((constructor)) static void prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[byte] = crc;
    }
#if defined(__x86_64__)
    unsigned a, b, c, d;
    has_instruction = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2);
#elif defined(__ARM_FEATURE_CRC32)
    has_instruction = true;
#endif
}

uint32_t apus_crc32c_table(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    while (length--) crc = crc >> 8 ^ table[(crc ^ *at++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2")))
static uint32_t instruction(uint32_t crc, const unsigned char *at, size_t length) {
    uint64_t wide = crc;
    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    while (length--) crc = _mm_crc32_u8(crc, *at++);
    return crc;
}
#elif defined(__ARM_FEATURE_CRC32)
static uint32_t instruction(uint32_t crc, const unsigned char *at, size_t length) {
    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        crc = __crc32cd(crc, word);
    }
    while (length--) crc = __crc32cb(crc, *at++);
    return crc;
}
#endif

bool apus_crc32c_has_instruction(void) { return has_instruction; }

uint32_t apus_crc32c(uint32_t crc, const void *bytes, size_t length) {
#if defined(__x86_64__) || defined(__ARM_FEATURE_CRC32)
    if (has_instruction) return instruction(crc, bytes, length);
#endif
    return apus_crc32c_table(crc, bytes, length);
}
