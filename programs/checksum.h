#pragma once
// Internet checksums as such programs keep them: whole over a fresh header, by difference where a field changed.
#include "parse.h"

static __always_inline __sum16 checksum_fold(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (__sum16)~sum;
}

// Of an IPv4 header without options whose check is 0.
static __always_inline __sum16 checksum_ipv4(struct iphdr *ip)
{
    __u16 *words = (__u16 *)ip;
    __u32 sum = 0;
#pragma unroll
    for (int i = 0; i < (int)sizeof(*ip) / 2; i++)
        sum += words[i];
    return checksum_fold(sum);
}

// RFC 1624 equation 3.
static __always_inline void checksum_replace16(__sum16 *check, __be16 from, __be16 to)
{
    *check = checksum_fold((__u16)~*check + (__u16)~from + to);
}

static __always_inline void checksum_replace32(__sum16 *check, __be32 from, __be32 to)
{
    *check = checksum_fold((__u32)bpf_csum_diff(&from, sizeof(from), &to, sizeof(to), (__u16)~*check));
}
