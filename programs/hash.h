#pragma once
// Bob Jenkins' lookup3 over whole words (public domain): spreads flows evenly, costs some thirty instructions.
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

static __always_inline __u32 rotate(__u32 word, __u32 by) { return (word << by) | (word >> (32 - by)); }

static __always_inline __u32 hash_words(const __u32 *words, int count, __u32 seed)
{
    __u32 a = 0xdeadbeef + (count << 2) + seed, b = a, c = a;
#pragma unroll
    for (int i = 0; i + 3 < count; i += 3) {
        a += words[i], b += words[i + 1], c += words[i + 2];
        a -= c, a ^= rotate(c, 4), c += b;
        b -= a, b ^= rotate(a, 6), a += c;
        c -= b, c ^= rotate(b, 8), b += a;
        a -= c, a ^= rotate(c, 16), c += b;
        b -= a, b ^= rotate(a, 19), a += c;
        c -= b, c ^= rotate(b, 4), b += a;
    }
    int rest = (count - 1) % 3 + 1, at = count - rest;
    a += words[at];
    if (rest > 1)
        b += words[at + 1];
    if (rest > 2)
        c += words[at + 2];
    c ^= b, c -= rotate(b, 14);
    a ^= c, a -= rotate(c, 11);
    b ^= a, b -= rotate(a, 25);
    c ^= b, c -= rotate(b, 16);
    a ^= c, a -= rotate(c, 4);
    b ^= a, b -= rotate(a, 14);
    c ^= b, c -= rotate(b, 24);
    return c;
}
