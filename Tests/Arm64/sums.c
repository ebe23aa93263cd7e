// The kernels of CShims/CChecksum on another architecture, under an emulator: every alignment, length and split against
// a slow twin that adds byte by byte (RFC 1071), nothing read past the end, and SCTP's CRC. Prints what it ran.
#include "CChecksum.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 65536 };   // the largest page arm64 has

static unsigned failures;

static uint16_t folded(uint64_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

// In memory order of a little-endian machine, as the kernels sum.
static uint16_t twin(const unsigned char *bytes, size_t length) {
    uint64_t sum = 0;
    for (size_t i = 0; i < length; i++) sum += (uint64_t)bytes[i] << (i & 1 ? 8 : 0);
    return folded(sum);
}

static unsigned char pattern(int which, size_t i) {
    switch (which) {
    case 0: return 0;
    case 1: return 0xff;
    case 2: return (unsigned char)i;
    default: return (unsigned char)(i * 2654435761u >> 7);
    }
}

static void expect(int is_right, const char *what, enum apus_sum_kernel kernel, size_t at, size_t length) {
    if (is_right) return;
    if (failures++ < 10) printf("%s: %s, alignment %zu, %zu bytes\n", what, apus_sum_name(kernel), at, length);
}

static unsigned sums(enum apus_sum_kernel kernel, unsigned char *end) {
    unsigned cases = 0;
    static const size_t lengths[] = {511, 512, 513, 1023, 1024, 1025, 1459, 1460, 1461, 9000, 9001, 65493, 65535, 65536};
    for (int which = 0; which < 4; which++) {
        static unsigned char bytes[65536 + 64];
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = pattern(which, i);
        for (size_t at = 0; at < 64; at++) {
            for (size_t length = 0; length <= 300; length++, cases++)
                expect(folded(apus_sum_with(kernel, bytes + at, length)) == twin(bytes + at, length), "sum", kernel, at, length);
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++, cases++)
                expect(folded(apus_sum_with(kernel, bytes + at, lengths[i])) == twin(bytes + at, lengths[i]), "sum", kernel, at, lengths[i]);
        }
        // Every split: a second part that begins at an odd place counts with its bytes exchanged (RFC 1071 section 2, B).
        for (size_t split = 0; split <= 203; split++, cases++) {
            uint16_t second = folded(apus_sum_with(kernel, bytes + 1 + split, 203 - split));
            if (split & 1) second = (uint16_t)(second << 8 | second >> 8);
            uint64_t whole = (uint64_t)folded(apus_sum_with(kernel, bytes + 1, split)) + second;
            expect(folded(whole) == twin(bytes + 1, 203), "split", kernel, split, 203);
        }
    }
    // `end` is followed by a page that faults.
    for (size_t length = 1; length <= 1100; length++, cases++)
        expect(folded(apus_sum_with(kernel, end - length, length)) == 0, "at a page's end", kernel, 0, length);
    return cases;
}

static unsigned crcs(void) {
    // RFC 3720 appendix B.4, and the check value of the algorithm.
    static unsigned char zeros[32], ones[32], up[32], many[203];
    memset(ones, 0xff, sizeof ones);
    for (int i = 0; i < 32; i++) up[i] = (unsigned char)i;
    for (size_t i = 0; i < sizeof many; i++) many[i] = pattern(3, i);
    const struct { const void *bytes; size_t length; uint32_t crc; } vectors[] = {
        {zeros, 32, 0x8a9136aa}, {ones, 32, 0x62a8ab43}, {up, 32, 0x46dd794e}, {"123456789", 9, 0xe3069283}};
    unsigned cases = 0;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++, cases++)
        expect(~apus_crc32c(~0u, vectors[i].bytes, vectors[i].length) == vectors[i].crc, "crc", APUS_SUM_PORTABLE, i, vectors[i].length);
    uint32_t whole = apus_crc32c_table(~0u, many, sizeof many);
    for (size_t split = 0; split <= sizeof many; split++, cases++)
        expect(apus_crc32c(apus_crc32c(~0u, many, split), many + split, sizeof many - split) == whole, "crc split", APUS_SUM_PORTABLE, split, 203);
    return cases;
}

int main(int count, char **words) {
    unsigned char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + PAGE, PAGE, PROT_NONE)) return perror("mmap"), 2;
    for (int kernel = 0; kernel < APUS_SUM_KERNELS; kernel++)
        if (apus_sum_has((enum apus_sum_kernel)kernel))
            printf("%s: %u sums\n", apus_sum_name((enum apus_sum_kernel)kernel), sums((enum apus_sum_kernel)kernel, memory + PAGE));
    printf("%u CRCs%s; chosen %s; %u failures\n", crcs(), apus_crc32c_has_instruction() ? ", by instruction" : "",
           apus_sum_name(apus_sum_chosen()), failures);
    // The kernel that the caller expects to be there, so that an empty run is no success.
    if (count > 1 && strcmp(words[1], apus_sum_name(apus_sum_chosen()))) return printf("expected %s\n", words[1]), 1;
    return failures != 0;
}
