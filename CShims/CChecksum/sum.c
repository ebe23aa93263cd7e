#include "CChecksum.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// Every kernel adds words into lanes that cannot overflow: no carry is ever lost, and none is looked for.
//
// The vector kernels take 64-bit lanes x = h * 2^32 + l and keep two sums: all = sum of x modulo 2^64, and
// high = sum of h, exact. Then the sum of l is all - high * 2^32 modulo 2^64, exact too while fewer than 2^31
// lanes are added: three operations a vector, where unpacking both halves takes four.

static uint64_t portable(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    uint64_t sum = 0;
    // Every machine has vectors of some kind, and the compiler uses them; where there is little to do they do not pay.
    if (length >= 256) {
        for (; length >= 64; length -= 64, at += 64) {
            uint32_t words[16];
            memcpy(words, at, sizeof words);
            uint64_t part = 0;
            for (int i = 0; i < 16; i++) part += words[i];
            sum += part;
        }
    }
    return sum + apus_sum_chain(at, length);
}

uint64_t (*apus_sum_long)(const void *, size_t) = portable;
static enum apus_sum_kernel chosen = APUS_SUM_PORTABLE;
static uint64_t (*kernels[APUS_SUM_KERNELS])(const void *, size_t) = {[APUS_SUM_PORTABLE] = portable};

#if defined(__x86_64__)

// The value with its bytes exchanged (RFC 1071 section 2, B): a sum of bytes that began at an odd place.
static inline uint64_t exchanged(uint64_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xff) << 8 | sum >> 8;
}

__attribute__((target("avx2")))
static uint64_t avx2(const void *bytes, size_t length) {
    if (length < 128) return apus_sum_chain(bytes, length);
    const unsigned char *at = bytes;
    __m256i all0 = _mm256_setzero_si256(), all1 = all0, high0 = all0, high1 = all0;
    uint64_t sum = 0;
    bool is_odd = false;
    // Loads that cross cache lines cost double: worth an aligned start where there are many.
    size_t skew = -(uintptr_t)at & 31;
    if (length >= 1024 && skew) {
        sum = apus_sum_chain(at, skew);
        is_odd = skew & 1;
        at += skew;
        length -= skew;
    }
    for (; length >= 128; length -= 128, at += 128) {
        __m256i a = _mm256_loadu_si256((const __m256i *)at), b = _mm256_loadu_si256((const __m256i *)(at + 32));
        __m256i c = _mm256_loadu_si256((const __m256i *)(at + 64)), d = _mm256_loadu_si256((const __m256i *)(at + 96));
        all0 = _mm256_add_epi64(all0, a);
        all1 = _mm256_add_epi64(all1, b);
        high0 = _mm256_add_epi64(high0, _mm256_srli_epi64(a, 32));
        high1 = _mm256_add_epi64(high1, _mm256_srli_epi64(b, 32));
        all0 = _mm256_add_epi64(all0, c);
        all1 = _mm256_add_epi64(all1, d);
        high0 = _mm256_add_epi64(high0, _mm256_srli_epi64(c, 32));
        high1 = _mm256_add_epi64(high1, _mm256_srli_epi64(d, 32));
    }
    for (; length >= 32; length -= 32, at += 32) {
        __m256i a = _mm256_loadu_si256((const __m256i *)at);
        all0 = _mm256_add_epi64(all0, a);
        high0 = _mm256_add_epi64(high0, _mm256_srli_epi64(a, 32));
    }
    __m256i all = _mm256_add_epi64(all0, all1), high = _mm256_add_epi64(high0, high1);
    __m256i both = _mm256_add_epi64(_mm256_sub_epi64(all, _mm256_slli_epi64(high, 32)), high);
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    uint64_t more = (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1) + apus_sum_chain(at, length);
    return sum + (is_odd ? exchanged(more) : more);
}

// Both halves of each lane, for few vectors.
__attribute__((target("avx512f"), always_inline))
static inline __m512i halves(__m512i x) {
    return _mm512_add_epi64(_mm512_srli_epi64(x, 32), _mm512_and_si512(x, _mm512_set1_epi64(0xffffffff)));
}

__attribute__((target("avx512f,avx512bw,bmi2")))
static uint64_t avx512(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    // Masked bytes are not read: a load across the end of the last page does not fault.
    if (length <= 64) return (uint64_t)_mm512_reduce_add_epi64(halves(_mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, (unsigned)length), at)));
    if (length <= 256) {
        __m512i sum = halves(_mm512_loadu_si512(at));
        for (length -= 64, at += 64; length > 64; length -= 64, at += 64) sum = _mm512_add_epi64(sum, halves(_mm512_loadu_si512(at)));
        sum = _mm512_add_epi64(sum, halves(_mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, (unsigned)length), at)));
        return (uint64_t)_mm512_reduce_add_epi64(sum);
    }
    __m512i all0 = _mm512_setzero_si512(), all1 = all0, high0 = all0, high1 = all0;
    uint64_t sum = 0;
    bool is_odd = false;
    size_t skew = -(uintptr_t)at & 63;
    if (length >= 1024 && skew) {
        sum = apus_sum_chain(at, skew);
        is_odd = skew & 1;
        at += skew;
        length -= skew;
    }
    for (; length >= 256; length -= 256, at += 256) {
        __m512i a = _mm512_loadu_si512(at), b = _mm512_loadu_si512(at + 64);
        __m512i c = _mm512_loadu_si512(at + 128), d = _mm512_loadu_si512(at + 192);
        all0 = _mm512_add_epi64(all0, a);
        all1 = _mm512_add_epi64(all1, b);
        high0 = _mm512_add_epi64(high0, _mm512_srli_epi64(a, 32));
        high1 = _mm512_add_epi64(high1, _mm512_srli_epi64(b, 32));
        all0 = _mm512_add_epi64(all0, c);
        all1 = _mm512_add_epi64(all1, d);
        high0 = _mm512_add_epi64(high0, _mm512_srli_epi64(c, 32));
        high1 = _mm512_add_epi64(high1, _mm512_srli_epi64(d, 32));
    }
    for (; length >= 64; length -= 64, at += 64) {
        __m512i a = _mm512_loadu_si512(at);
        all0 = _mm512_add_epi64(all0, a);
        high0 = _mm512_add_epi64(high0, _mm512_srli_epi64(a, 32));
    }
    if (length) {
        __m512i a = _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, (unsigned)length), at);
        all1 = _mm512_add_epi64(all1, a);
        high1 = _mm512_add_epi64(high1, _mm512_srli_epi64(a, 32));
    }
    __m512i all = _mm512_add_epi64(all0, all1), high = _mm512_add_epi64(high0, high1);
    __m512i both = _mm512_add_epi64(_mm512_sub_epi64(all, _mm512_slli_epi64(high, 32)), high);
    uint64_t more = (uint64_t)_mm512_reduce_add_epi64(both);
    return sum + (is_odd ? exchanged(more) : more);
}

// Two operations a vector: products of unsigned bytes and 1, or 0, summed by fours into 32-bit lanes: the even bytes into
// one sum, the odd ones into another. A step adds at most 510 to a lane, so that 2^30 bytes fit.
__attribute__((target("avx512f,avx512bw,avx512vnni,bmi2")))
static uint64_t vnni(const void *bytes, size_t length) {
    if (length < 1024 || length > 1 << 30) return avx512(bytes, length);
    const unsigned char *at = bytes;
    const __m512i even = _mm512_set1_epi16(0x0001), odd = _mm512_set1_epi16(0x0100);
    __m512i low0 = _mm512_setzero_si512(), low1 = low0, low2 = low0, low3 = low0;
    __m512i high0 = low0, high1 = low0, high2 = low0, high3 = low0;
    size_t skew = -(uintptr_t)at & 63;
    uint64_t sum = apus_sum_chain(at, skew);
    at += skew;
    length -= skew;
    for (; length >= 256; length -= 256, at += 256) {
        __m512i a = _mm512_load_si512(at), b = _mm512_load_si512(at + 64);
        __m512i c = _mm512_load_si512(at + 128), d = _mm512_load_si512(at + 192);
        low0 = _mm512_dpbusd_epi32(low0, a, even);
        high0 = _mm512_dpbusd_epi32(high0, a, odd);
        low1 = _mm512_dpbusd_epi32(low1, b, even);
        high1 = _mm512_dpbusd_epi32(high1, b, odd);
        low2 = _mm512_dpbusd_epi32(low2, c, even);
        high2 = _mm512_dpbusd_epi32(high2, c, odd);
        low3 = _mm512_dpbusd_epi32(low3, d, even);
        high3 = _mm512_dpbusd_epi32(high3, d, odd);
    }
    __m512i low = _mm512_add_epi64(_mm512_add_epi64(halves(low0), halves(low1)), _mm512_add_epi64(halves(low2), halves(low3)));
    __m512i high = _mm512_add_epi64(_mm512_add_epi64(halves(high0), halves(high1)), _mm512_add_epi64(halves(high2), halves(high3)));
    uint64_t more = (uint64_t)_mm512_reduce_add_epi64(_mm512_add_epi64(low, _mm512_slli_epi64(high, 8))) + avx512(at, length);
    return sum + (skew & 1 ? exchanged(more) : more);
}

// cpuid's word and the operating system's: a register nobody saves is not there.
struct features { bool avx2, avx512, vnni; };

static struct features features(void) {
    struct features found = {false, false, false};
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return found;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    found.avx2 = b & bit_AVX2;
    found.avx512 = (low & 0xe0) == 0xe0 && (b & bit_AVX512F) && (b & bit_AVX512BW) && (b & bit_BMI2);
    found.vnni = found.avx512 && (c & bit_AVX512VNNI);
    return found;
}

// The quicker of two over a usual packet, each as quick as it has ever been in some rounds: what else the machine does only
// takes time. Some processors have products as cheap as sums, to others they are twice the work.
static enum apus_sum_kernel quicker(enum apus_sum_kernel one, enum apus_sum_kernel other) {
    static const unsigned char packet[1514];
    const enum apus_sum_kernel both[] = {one, other};
    uint64_t best[] = {UINT64_MAX, UINT64_MAX};
    volatile uint64_t sink = 0;
    for (int round = 0; round < 64; round++) {
        int turn = round & 1;
        uint64_t began = __rdtsc();
        for (int time = 0; time < 8; time++) sink += kernels[both[turn]](packet + 54, sizeof packet - 54);
        uint64_t took = __rdtsc() - began;
        if (took < best[turn]) best[turn] = took;
    }
    return best[1] < best[0] ? other : one;
}

#elif defined(__ARM_NEON)

static uint64_t neon(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    uint64x2_t sum0 = vdupq_n_u64(0), sum1 = sum0;
    // Pairwise: two 32-bit words into each 64-bit lane.
    for (; length >= 64; length -= 64, at += 64) {
        sum0 = vpadalq_u32(sum0, vreinterpretq_u32_u8(vld1q_u8(at)));
        sum1 = vpadalq_u32(sum1, vreinterpretq_u32_u8(vld1q_u8(at + 16)));
        sum0 = vpadalq_u32(sum0, vreinterpretq_u32_u8(vld1q_u8(at + 32)));
        sum1 = vpadalq_u32(sum1, vreinterpretq_u32_u8(vld1q_u8(at + 48)));
    }
    uint64x2_t sum = vaddq_u64(sum0, sum1);
    return vgetq_lane_u64(sum, 0) + vgetq_lane_u64(sum, 1) + apus_sum_chain(at, length);
}

#endif

__attribute__((constructor)) static void choose(void) {
#if defined(__x86_64__)
    struct features has = features();
    if (has.avx2) kernels[chosen = APUS_SUM_AVX2] = avx2;
    if (has.avx512) kernels[chosen = APUS_SUM_AVX512] = avx512;
    if (has.vnni) {
        kernels[APUS_SUM_VNNI] = vnni;
        chosen = quicker(APUS_SUM_VNNI, APUS_SUM_AVX512);
    }
#elif defined(__ARM_NEON)
    kernels[chosen = APUS_SUM_NEON] = neon;
#endif
    apus_sum_long = kernels[chosen];
}

bool apus_sum_has(enum apus_sum_kernel kernel) { return kernels[kernel] != NULL; }
enum apus_sum_kernel apus_sum_chosen(void) { return chosen; }

const char *apus_sum_name(enum apus_sum_kernel kernel) {
    static const char *const names[APUS_SUM_KERNELS] = {"portable", "avx2", "avx512", "vnni", "neon"};
    return names[kernel];
}

uint64_t apus_sum_with(enum apus_sum_kernel kernel, const void *bytes, size_t length) {
    return kernels[kernel](bytes, length);
}

#ifdef APUS_PLANTED
int apus_planted_rule = -1;
#endif
